"""Files of texts and answers: read rightly, or refused with the file and the line.

    text,answer                          .csv: commas, semicolons or tabs, and quotes
    "The lift is stuck, help!",urgent    .tsv: tabs, and quotes only where a spreadsheet set all
    Where is the manual?,can wait        .jsonl: an object on each line

All are in UTF-8. Spaces around a text or an answer are passed over. So are empty lines, and the
names of the columns once more, as in the middle of joined files; a Table knows where.
"""

import csv
import io
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
from model import InputError

MAX_CHARACTERS = 100_000  # of a text or an answer, in every format


class Row(NamedTuple):
    """One text of a file."""

    text: str
    answer: str  # "" where there is none
    values: list  # of all columns, as they stand in the file


class Table(NamedTuple):
    """What a file of texts holds."""

    columns: list  # their names, as they stand in the file
    rows: list  # [Row]
    passed_over: list  # FILE:LINE between the rows of what is none

    @property
    def pairs(self):
        """[(text, answer)]"""
        return [(row.text, row.answer) for row in self.rows]

    @property
    def has_answers(self):
        """Is a column called answer?"""
        return "answer" in map(as_compared, self.columns)

    @property
    def others(self):
        """The columns that are neither text nor answer."""
        return [name for name in self.columns if as_compared(name) not in ("text", "answer")]


def read_pairs(path):
    """[(text, answer)] of a .tsv, .csv or .jsonl file (.ndjson, .jsonlines, .json are .jsonl).

    A first row that names the columns text and answer is a header, and there may be other columns;
    without one there are just these two. Raises InputError with the file and the line of what
    cannot be read.
    """
    return read_table(path, ["text", "answer"]).pairs


def read_texts(path):
    """As `read_pairs`, but an answer may be missing: then it is "". Without a header there may be
    one column. In a .txt each line is a text."""
    return read_table(path, ["text"]).pairs


def read_table(path, needed):
    """The Table in a file, where no value of the columns `needed` is missing."""
    readers = dict(READERS)
    if needed == ["text"]:
        readers[".txt"] = line_rows
    columns, found = reader_of(path, readers)(path, decoded(path), needed)
    names = [as_compared(column) for column in columns]
    rows, empty, passed_over = [], [], []
    for place, values in found:
        if not values:
            empty.append(place)
            continue
        if rows:  # before the first and behind the last there is nothing to lose
            passed_over += empty
        empty = []
        named = dict(zip(names, values))
        text = plain(named.get("text"), place, "text")
        answer = plain(named.get("answer"), place, "answer")
        if not text or "answer" in needed and not answer:
            raise InputError(f"{place}: the text or the answer is empty or missing")
        rows.append(Row(text, answer, values))
    if not rows:
        raise InputError(f"{path}: there are no rows in it")
    return Table(columns, rows, passed_over)


def reader_of(path, readers):
    """The one of `readers` for the name of this file; InputError where there is none."""
    ending = Path(path).suffix.lower()
    if ending not in readers:
        raise InputError(f"{path}: the name ends in none of {', '.join(readers)}")
    return readers[ending]


def decoded(path):
    """The characters of a file in UTF-8. A byte order mark stands at its start, or where each of
    several joined files began: it is no character of the text."""
    data = Path(path).read_bytes()
    try:
        content = data.decode()
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise InputError(f"{path}:{line}: this is not UTF-8: save the file as that") from problem
    return re.sub("(^|[\r\n])\ufeff", r"\1", content)


def as_compared(name):
    """The name of a column without what makes no difference."""
    return name.strip().lower()


# ------------------------------------------------------------------ values


def plain(value, place, name):
    """A value as text without spaces around it, "" for None; InputError for what is no text."""
    if isinstance(value, (dict, list)):
        kind = "an object" if isinstance(value, dict) else "a list"
        raise InputError(f"{place}: {name} is {kind}: give a text, a number, true or false")
    value = as_field(value)
    if len(value) > MAX_CHARACTERS:
        raise InputError(f"{place}: {name} has {len(value)} characters, more than {MAX_CHARACTERS}")
    require_characters(value, f"{place}: {name}")
    return value.strip()


def as_field(value):
    """A value of any format as the text that stands for it in a table."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return as_json(value)


def as_json(value):
    """A value as JSON spells it, and a number as its file does."""
    return value.spelling if isinstance(value, Decimal) else json.dumps(value, ensure_ascii=False)


class Decimal(float):
    """A number of JSON with a point or a power, which keeps its spelling."""

    def __new__(cls, spelling):
        number = super().__new__(cls, spelling)
        number.spelling = spelling
        return number


def whole_number(spelling):
    """A whole number of JSON; one that is too long for Python stays a text."""
    return int(spelling) if len(spelling) < 4000 else spelling


def require_characters(text, where):
    """Raise InputError for half of a character, as when an emoji is cut in two, and for a code of
    0, which no text has."""
    try:
        text.encode()
    except UnicodeEncodeError as problem:
        raise InputError(
            f"{where}: half of a character at {problem.start + 1} of {len(text)}: write it in UTF-8"
        ) from problem
    if "\0" in text:
        raise InputError(f"{where}: a character of code 0: this is no text")


# ------------------------------------------------------------------ .tsv and .csv
#
# A reader gives (names of the columns, [(FILE:LINE, values)]). What is no row has no values.

IN_QUOTES = re.compile('"([^"]|"")*"')  # as a spreadsheet writes a field; a quote is doubled


def tsv_rows(path, content, needed):
    """The rows of a table with tabs. Quotes are characters of the texts like any other, but where
    all that there are stand as a spreadsheet sets them, they are taken away."""
    rows = split_fields(path, content, delimiter="\t", quoting=csv.QUOTE_NONE)
    quoted = []
    for _, fields in rows:
        quoted += [field for field in fields if '"' in field]
    if all(IN_QUOTES.fullmatch(field.strip()) for field in quoted):
        rows = split_fields(path, content, delimiter="\t")
    return named(rows, needed)


def csv_rows(path, content, needed):
    """The rows of a table with commas, semicolons or tabs, and quotes."""
    stated = re.match("sep=(.)\r?\n", content)  # as some spreadsheets say it in a line of its own
    if stated:
        delimiter, content = stated[1], content[len("sep=,") :]
    else:
        delimiter = delimiter_of(path, content, needed)
    return named(split_fields(path, content, delimiter=delimiter), needed)


def split_fields(path, content, **dialect):
    """[(FILE:LINE, fields)] of all rows; none for one that is empty."""
    csv.field_size_limit(2**31 - 1)  # one limit for all formats: MAX_CHARACTERS
    lines = io.StringIO(content, newline="")
    reader = csv.reader(lines, strict=True, skipinitialspace=True, **dialect)
    rows, line = [], 0
    try:
        for fields in reader:
            line = reader.line_num  # a row of a .csv may be several lines
            rows.append((f"{path}:{line}", fields if "".join(fields).strip() else []))
    except csv.Error as problem:  # in the row behind the last that was read
        raise InputError(f"{path}:{line + 1}: {problem}") from problem
    return rows


DELIMITERS = (",", ";", "\t")


def delimiter_of(path, content, needed):
    """What stands between the fields of a .csv: a comma, but in most of Europe a semicolon.
    InputError where it could be either."""
    possible = []
    for delimiter in DELIMITERS:
        try:
            rows = filled(split_fields(path, content, delimiter=delimiter))
        except InputError:
            continue
        widths = {len(fields) for _, fields in rows}
        if not rows or widths == {1}:
            continue
        if set(needed) <= set(column_names(rows[0])):
            return delimiter
        if len(widths) == 1:
            possible.append(delimiter)
    if len(possible) > 1:
        raise InputError(
            f"{path}:1: {' or '.join(map(repr, possible))} may stand between text and answer: "
            "name the columns text and answer in a first line"
        )
    if possible:
        return possible[0]
    first_line = content.partition("\n")[0]
    there = [delimiter for delimiter in DELIMITERS if delimiter in first_line]
    return there[0] if there else ","


def filled(rows):
    """Those of the rows that are not empty."""
    return [row for row in rows if row[1]]


def named(rows, needed):
    """(names of the columns, rows); the first row may name them, and so may others in the middle
    of joined files: what names the columns is no row."""
    if not filled(rows):
        return needed, []
    place, first = filled(rows)[0]
    names = column_names((place, first))
    if set(needed) <= set(names):
        for name in ("text", "answer"):
            if names.count(name) > 1:
                raise InputError(f"{place}: two columns are called {name}: call one otherwise")
    else:
        require_no_other_header(filled(rows))
        first = ["text", "answer"][: max(len(first), len(needed))]
        names = None  # there are none to come again
    found = []
    for place, fields in rows:
        again = column_names((place, fields))
        if again == names:
            fields = []
        elif {"text", "answer"} <= set(again):
            raise InputError(
                f"{place}: the columns are named here, and not so in the first line: give each of "
                "the files that were joined the same first line"
            )
        elif fields and len(fields) != len(first):
            raise InputError(f"{place}: {len(fields)} fields, not {len(first)}: {', '.join(first)}")
        found.append((place, fields))
    return first, found


def column_names(row):
    """The fields of a row (FILE:LINE, fields), as names of columns."""
    _, fields = row
    return [as_compared(name) for name in fields]


# What the columns are called where nobody calls them text and answer.
USUAL_NAMES = set(
    "text texts sentence sentences input inputs question query prompt content body message review "
    "document comment tweet post title description utterance source ticket instruction "
    "answer answers label labels class category target targets output outputs sentiment completion "
    "response result intent topic priority type tag score".split()
)


def require_no_other_header(rows):
    """Raise InputError where the first row seems to name the columns, but not text and answer: by
    usual names, or by an answer of its own while all others come again."""
    place, first = rows[0]
    names = column_names(rows[0])
    usual = [name for name in names if name in USUAL_NAMES]
    others = Counter(fields[-1] for _, fields in rows[1:])
    alone = len(first) > 1 and first[-1] not in others and " " not in first[0].strip()
    come_again = len(others) > 1 and min(others.values()) > 1
    if len(usual) >= min(2, len(names)) or alone and come_again:
        raise InputError(
            f"{place}: the columns seem to be called {', '.join(names)}: call them text and "
            "answer, or write a line with these two names above"
        )


# ------------------------------------------------------------------ .jsonl and .txt


def json_rows(path, content, needed):
    """The rows of lines that are objects, which may have other names each."""
    decoder = json.JSONDecoder(
        object_pairs_hook=once_each,
        parse_constant=no_value,
        parse_int=whole_number,
        parse_float=Decimal,
    )
    columns, found = {}, []  # columns: {name as compared: as it stands in the file}
    for place, line in numbered_lines(path, content):
        values = {}
        if line.strip():
            values = decoded_line(decoder, place, line)
            for name in values:
                columns.setdefault(as_compared(name), name)
            values = {as_compared(name): value for name, value in values.items()}
            require_values(place, values, needed)
        found.append((place, values))
    rows = []
    for place, values in found:
        rows.append((place, [values.get(name) for name in columns] if values else []))
    return list(columns.values()), rows


def require_values(place, values, needed):
    """Raise InputError where one of the names `needed` has no value."""
    missing = [name for name in needed if values.get(name) is None]
    if missing:
        there = ", ".join(values)[:100] or "nothing"
        raise InputError(f"{place}: {missing[0]} is empty or missing, there is {there}")


def decoded_line(decoder, place, line):
    """The object on a line of JSON; InputError for anything else."""
    try:
        values = decoder.decode(line)
    except json.JSONDecodeError as problem:
        what = f"{problem.msg} at character {problem.colno}"
        raise InputError(f"{place}: {what}: write one object on each line") from problem
    except RecursionError as problem:
        raise InputError(f"{place}: lists or objects within one another without end") from problem
    except ValueError as problem:
        raise InputError(f"{place}: {problem}") from problem
    if not isinstance(values, dict):
        raise InputError(f"{place}: this is no object: write one object on each line")
    return values


def once_each(pairs):
    """The object of these (name, value) pairs; ValueError where a name comes twice."""
    if len({as_compared(name) for name, _ in pairs}) < len(pairs):
        raise ValueError("a name comes twice in one object")
    return dict(pairs)


def no_value(constant):
    raise ValueError(f"{constant} is no value: give a text, a number, true or false")


def line_rows(path, content, needed):
    """The lines of a text, a row each."""
    rows = []
    for place, line in numbered_lines(path, content):
        rows.append((place, [line] if line.strip() else []))
    return ["text"], rows


def numbered_lines(path, content):
    """Yield (FILE:LINE, line)."""
    for number, line in enumerate(re.split("\r\n|\r|\n", content), 1):
        yield f"{path}:{number}", line


READERS = {
    ".tsv": tsv_rows,
    ".csv": csv_rows,
    ".jsonl": json_rows,
    ".ndjson": json_rows,
    ".jsonlines": json_rows,
    ".json": json_rows,
}

# ------------------------------------------------------------------ writing


def as_file(pairs, path):
    """(text, answer) pairs as the content of a file of this name, as `as_table` makes it."""
    return as_table(["text", "answer"], pairs, path)


def as_table(columns, rows, path):
    """Rows of values as the content of a file of this name, which is read back as it is. Raises
    InputError for another ending, and for what such a file cannot hold."""
    reader = reader_of(path, READERS)
    content = WRITERS[reader](columns, rows)
    if not is_read_back(reader, content, columns, rows):
        for row in rows:
            if not is_read_back(reader, WRITERS[reader](columns, [row]), columns, [row]):
                raise InputError(
                    f"{path}: a {Path(path).suffix} cannot hold {as_fields(row)!r:.80}, with its "
                    "tab, line, quotes or name of a column: save to a .jsonl"
                )
    return content


def as_answered(table, answers, path):
    """A table with an answer to each text, as the content of a file of this name. All its rows and
    columns stay; an answer that was there before is then called "given answer"."""
    columns, taken = [], {"answer"}
    for name in table.columns:
        while as_compared(name) in taken:
            name = f"given {name}"
        taken.add(as_compared(name))
        columns.append(name)
    rows = [[*row.values, answer] for row, answer in zip(table.rows, answers)]
    return as_table([*columns, "answer"], rows, path)


def is_read_back(reader, content, columns, rows):
    """Does this reader find these columns and rows in the content, but for spaces around values?"""
    try:
        names, found = reader("", content, [])
    except InputError:
        return False
    there = [as_fields(values) for _, values in found if values]
    return as_fields(names) == as_fields(columns) and there == [as_fields(row) for row in rows]


def as_fields(row):
    """A row of values as the texts that stand for them in a table."""
    return [as_field(value).strip() for value in row]


def tsv_content(columns, rows):
    lines = ["\t".join(as_fields(row)) for row in [columns, *rows]]
    return "\n".join(lines) + "\n"


def csv_content(columns, rows):
    content = io.StringIO(newline="")
    writer = csv.writer(content, lineterminator="\n")
    for row in [columns, *rows]:
        writer.writerow([as_field(value) for value in row])
    return content.getvalue()


def json_content(columns, rows):
    lines = []
    for row in rows:
        fields = [f"{as_json(name)}: {as_json(value)}" for name, value in zip(columns, row)]
        lines.append(f"{{{', '.join(fields)}}}\n")
    return "".join(lines)


WRITERS = {tsv_rows: tsv_content, csv_rows: csv_content, json_rows: json_content}
