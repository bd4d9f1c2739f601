"""Files of texts and answers: read rightly, or refused with the file and the line.

    text,answer                          .csv: commas, semicolons or tabs, and quotes
    "The lift is stuck, help!",urgent    .tsv: tabs, no quotes
    Where is the manual?,can wait        .jsonl: an object on each line

All are in UTF-8. Empty lines are passed over, and so are spaces around a text or an answer.
"""

import csv
import io
import json
import re
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from model import InputError

MAX_CHARACTERS = 100_000  # of a text or an answer, in every format


def read_pairs(path):
    """[(text, answer)] of a .tsv, .csv or .jsonl file (.ndjson, .jsonlines, .json are .jsonl).

    A first row that names the columns text and answer is a header, and there may be other columns;
    without one there are just these two. Raises InputError with the file and the line of what
    cannot be read.
    """
    pairs = []
    for place, text, answer in read_rows(path, ["text", "answer"]):
        if not answer:
            raise InputError(f"{place}: the text or the answer is empty or missing")
        pairs.append((text, answer))
    return pairs


def read_texts(path):
    """As `read_pairs`, but an answer may be missing: then it is "". Without a header there may be
    one column. In a .txt each line is a text."""
    return [(text, answer) for _, text, answer in read_rows(path, ["text"])]


def read_rows(path, needed):
    """[(FILE:LINE, text, answer)] of a file with the columns `needed`; "" for no answer."""
    path = Path(path)
    readers = dict(READERS)
    if needed == ["text"]:
        readers[".txt"] = line_values
    ending = path.suffix.lower()
    if ending not in readers:
        raise InputError(f"{path}: the name ends in none of {', '.join(readers)}")
    rows = []
    for place, values in readers[ending](path, decoded(path), needed):
        text = plain(values.get("text"), place, "text")
        answer = plain(values.get("answer"), place, "answer")
        if not text:
            raise InputError(f"{place}: the text or the answer is empty or missing")
        rows.append((place, text, answer))
    if not rows:
        raise InputError(f"{path}: there are no rows in it")
    return rows


def decoded(path):
    """The characters of a file in UTF-8, with or without a byte order mark."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise InputError(f"{path}:{line}: this is not UTF-8: save the file as that") from problem


# ------------------------------------------------------------------ values


def plain(value, place, name):
    """A value as text without spaces around it, "" for None; InputError for what is no text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        kind = "an object" if isinstance(value, dict) else "a list"
        raise InputError(f"{place}: {name} is {kind}: give a text, a number, true or false")
    if len(value) > MAX_CHARACTERS:
        raise InputError(f"{place}: {name} has {len(value)} characters, more than {MAX_CHARACTERS}")
    require_characters(value, f"{place}: {name}")
    return value.strip()


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


def tsv_values(path, content, needed):
    """Yield (FILE:LINE, {column: value}) of a table with tabs and without quotes."""
    rows = split_fields(path, content, delimiter="\t", quoting=csv.QUOTE_NONE)
    for place, fields in rows:
        for field in fields:
            if in_quotes(field):
                raise InputError(
                    f"{place}: {field[:40]} stands in quotes, and a .tsv has none: take them away, "
                    "or save the file as .csv"
                )
    yield from named(rows, needed)


def in_quotes(field):
    """Would a spreadsheet mean something else by this field than its characters?"""
    return len(field) > 1 and field[0] == '"' and field[-1] == '"'


def csv_values(path, content, needed):
    """Yield (FILE:LINE, {column: value}) of a table with commas, semicolons or tabs, and quotes."""
    delimiter = delimiter_of(path, content, needed)
    yield from named(split_fields(path, content, delimiter=delimiter), needed)


def split_fields(path, content, **dialect):
    """[(FILE:LINE, fields)] of the rows that are not empty."""
    csv.field_size_limit(2**31 - 1)  # one limit for all formats: MAX_CHARACTERS
    lines = io.StringIO(content, newline="")
    reader = csv.reader(lines, strict=True, skipinitialspace=True, **dialect)
    rows, line = [], 0
    try:
        for fields in reader:
            line = reader.line_num  # a row of a .csv may be several lines
            if "".join(fields).strip():
                rows.append((f"{path}:{line}", fields))
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
            rows = split_fields(path, content, delimiter=delimiter)
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


def named(rows, needed):
    """Yield (FILE:LINE, {column: value}) of rows of fields; the first row may name the columns."""
    if not rows:
        return
    place, first = rows[0]
    names = column_names(rows[0])
    if set(needed) <= set(names):
        rows = rows[1:]
        for name in ("text", "answer"):
            if names.count(name) > 1:
                raise InputError(f"{place}: two columns are called {name}: call one otherwise")
    else:
        require_no_other_header(rows)
        names = ["text", "answer"][: max(len(first), len(needed))]
    for place, fields in rows:
        if len(fields) != len(names):
            raise InputError(f"{place}: {len(fields)} fields, not {len(names)}: {', '.join(names)}")
        yield place, dict(zip(names, fields))


def column_names(row):
    """The fields of a row (FILE:LINE, fields), as names of columns."""
    _, fields = row
    return [name.strip().lower() for name in fields]


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


def json_values(path, content, needed):
    """Yield (FILE:LINE, {name: value}) of lines that are objects; a number keeps its spelling."""
    decoder = json.JSONDecoder(
        object_pairs_hook=once_each, parse_constant=no_value, parse_int=str, parse_float=str
    )
    for place, line in filled_lines(path, content):
        values = decoded_line(decoder, place, line)
        missing = [name for name in needed if values.get(name) is None]
        if missing:
            there = ", ".join(values)[:100] or "nothing"
            raise InputError(f"{place}: {missing[0]} is empty or missing, there is {there}")
        yield place, values


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
    values = {name.strip().lower(): value for name, value in pairs}
    if len(values) < len(pairs):
        raise ValueError("a name comes twice in one object")
    return values


def no_value(constant):
    raise ValueError(f"{constant} is no value: give a text, a number, true or false")


def line_values(path, content, needed):
    """Yield (FILE:LINE, {"text": line}) of the lines that are not empty."""
    for place, line in filled_lines(path, content):
        yield place, {"text": line}


def filled_lines(path, content):
    """Yield (FILE:LINE, line) of the lines that are not empty."""
    for number, line in enumerate(re.split("\r\n|\r|\n", content), 1):
        if line.strip():
            yield f"{path}:{number}", line


READERS = {
    ".tsv": tsv_values,
    ".csv": csv_values,
    ".jsonl": json_values,
    ".ndjson": json_values,
    ".jsonlines": json_values,
    ".json": json_values,
}

# ------------------------------------------------------------------ writing


def as_file(pairs, path):
    """(text, answer) pairs as the content of a file of this name, which `read_pairs` reads back.
    Raises InputError for another ending, and for what a .tsv cannot hold."""
    ending = Path(path).suffix.lower()
    if ending == ".tsv":
        return as_tsv(pairs, path)
    if ending == ".csv":
        content = io.StringIO(newline="")
        csv.writer(content, lineterminator="\n").writerows([("text", "answer"), *pairs])
        return content.getvalue()
    if ending in READERS:
        rows = [{"text": text, "answer": answer} for text, answer in pairs]
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    raise InputError(f"{path}: the name ends in none of {', '.join(READERS)}")


def as_tsv(pairs, path):
    lines = ["text\tanswer\n"]
    for pair in pairs:
        for field in pair:
            if set(field) & set("\t\r\n") or in_quotes(field):
                raise InputError(
                    f"{path}: a .tsv cannot hold {field[:40]!r}, with its tab, line or quotes: "
                    "save to a .csv"
                )
        lines.append("\t".join(pair) + "\n")
    return "".join(lines)
