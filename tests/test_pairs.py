"""Files of texts and answers: read rightly in every spelling, or refused with file and line."""

import json

import pytest
from conftest import ROOT
from pairs import MAX_CHARACTERS, as_answered, as_file, read_pairs, read_table, read_texts

from model import InputError

WANT = [('say "hi", now', "yes"), ('"tab', "no"), ("naïve — 文字\u2028end", "7")]
JSON_LINES = [{"text": text, "answer": answer, "id": [1]} for text, answer in WANT]
FILES = {
    "plain.csv": '"say ""hi"", now",yes\n"""tab",no\nnaïve — 文字\u2028end,7\n',
    "header.csv": 'i,Answer,text\n,yes,"say ""hi"", now"\n,no,"""tab"\n\n3,7,naïve — 文字\u2028end',
    "spaces.csv": '"say ""hi"", now", "yes"\n"""tab", no\n  naïve — 文字\u2028end , 7\n',
    "semicolons.csv": '"say ""hi"", now";yes\n"""tab";no\nnaïve — 文字\u2028end;7\n',
    "header-semicolons.CSV": 'text;answer\nsay "hi", now;yes\n"""tab";no\nnaïve — 文字\u2028end;7',
    "tabs.csv": 'say "hi", now\tyes\n"""tab"\tno\nnaïve — 文字\u2028end\t7\n',
    "plain.tsv": 'say "hi", now\tyes\n\n"tab\tno\n  naïve — 文字\u2028end \t 7\n\n',
    "header.TSV": 'text\tanswer\nsay "hi", now\tyes\n"tab\tno\nnaïve — 文字\u2028end\t7',
    "rows.jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in JSON_LINES) + "\n\n",
    "escaped.NDJSON": "\n".join(json.dumps(row) for row in JSON_LINES),
    "capitals.jsonlines": "\n".join(json.dumps(row).replace("text", "Text") for row in JSON_LINES),
    "numbers.json": "\n".join(json.dumps(row).replace('"7"', "7") for row in JSON_LINES),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["", "BOM"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_files_of_texts_and_answers(tmp_path, name, start, end):
    path = tmp_path / name
    path.write_bytes((start + FILES[name].replace("\n", end)).encode())
    assert read_pairs(path) == WANT == read_pairs(str(path)) == read_texts(path)


LONG = "x" * (MAX_CHARACTERS + 1)
REFUSED = [
    # rows that are cut, too wide or empty
    ("a.tsv", "x\ty\nz\n", "a.tsv:2: 1 fields, not 2: text, answer"),
    ("a.tsv", "x\ty\n\nx\ty\tz\n", "a.tsv:3: 3 fields"),
    ("a.csv", "text,answer,id\nx,y\n", "a.csv:2: 2 fields, not 3: text, answer, id"),
    ("a.csv", 'x,y\n"open,y\nx,y\nx,y\n', "a.csv:2: unexpected end of data"),
    ("a.csv", 'x,y\n"open" shut,y\n', "a.csv:2: ',' expected after"),
    ("a.csv", 'x,y\n"two\nlines"\n', "a.csv:3: 1 fields"),
    ("a.csv", "x,y\n ,y\n", "a.csv:2: the text or the answer is empty"),
    ("a.tsv", "x\ty\nx\t\n", "a.tsv:2: the text or the answer is empty"),
    ("a.tsv", "\n\n", "a.tsv: there are no rows"),
    ("a.csv", "", "a.csv: there are no rows"),
    ("a.jsonl", "\ufeff", "a.jsonl: there are no rows"),
    ("a.csv", "text,answer\n", "a.csv: there are no rows"),
    # what the file is
    ("a.xlsx", "x,y\n", r"a.xlsx: the name ends in none of .tsv, .csv, .jsonl"),
    ("a", "x,y\n", "a: the name ends in none of"),
    ("a.txt", "x\ty\n", "a.txt: the name ends in none of"),
    ("a.tsv", b"x\ty\n\xe9\ty\n", "a.tsv:2: this is not UTF-8"),
    ("a.csv", "x,y\n".encode("utf-16"), "a.csv:1: this is not UTF-8"),
    ("a.tsv", 'x\ty\n"a\ttab"\ty\n', "a.tsv:2: 3 fields, not 2"),
    ("a.tsv", 'x\ty\n"two\nlines"\ty\n', "a.tsv:2: 1 fields, not 2"),
    # commas or semicolons
    ("a.csv", "Hallo, Welt;ja\nTag, Anna;nein\n", "a.csv:1: ',' or ';' may stand between"),
    ("a.csv", "x;y\nx;y;z\n", "a.csv:2: 3 fields"),
    # headers
    ("a.csv", "text,label\nhello,yes\n", "a.csv:1: the columns seem to be called text, label"),
    ("a.csv", "Question;Answer\nhello;yes\n", "a.csv:1: the columns seem .* question, answer"),
    ("a.tsv", "id\tsentence\tclass\n1\thello\tyes\n", "a.tsv:1: the columns seem"),
    ("a.csv", "Betreff,Eile\na,ja\nb,ja\nc,nein\nd,nein\n", "a.csv:1: .* betreff, eile"),
    ("a.csv", "text,answer,text\nx,y,z\n", "a.csv:1: two columns are called text"),
    ("a.tsv", "text\tAnswer\tanswer\nx\ty\tz\n", "a.tsv:1: two columns are called answer"),
    ("a.csv", "Export,2026\ntext,answer\nx,y\n", "a.csv:2: the columns are named here, and not so"),
    ("a.csv", "text,answer\nx,y\nanswer,text\ny,x\n", "a.csv:3: the columns are named here"),
    ("a.csv", "text,answer\nx,y\nid,text,answer\n1,x,y\n", "a.csv:3: the columns are named here"),
    ("a.csv", "# a note\ntext,answer\nx,y\n", "a.csv:1: 1 fields, not 2"),
    # JSON lines
    ("a.jsonl", '{"text": "x", "answer": "y"}\n{"text": "x"}\n', "a.jsonl:2: answer is empty or"),
    ("a.jsonl", '{"text": "x", "label": "y"}', "answer is empty or missing, there is text, label"),
    ("a.jsonl", '{"text": "x", "answer": null}', "a.jsonl:1: .*empty or missing"),
    ("a.jsonl", "{'text'", "a.jsonl:1: Expecting property name .* at character 2"),
    ("a.jsonl", '["x", "y"]', "a.jsonl:1: this is no object"),
    ("a.json", '[{"text": "x", "answer": "y"}]', "a.json:1: this is no object: write one object"),
    ("a.json", '\n[\n{"text": "x", "answer": "y"}\n]', "a.json:2: Expecting value at character 2"),
    ("a.json", '{\n"text": "x",\n"answer": "y"\n}', "a.json:1: .* write one object on each line"),
    ("a.jsonl", '{"text": "x", "answer": "y", "Text": "z"}', "a.jsonl:1: a name comes twice"),
    # values
    ("a.jsonl", '\n{"text": "x", "answer": NaN}', "a.jsonl:2: NaN is no value"),
    ("a.jsonl", '{"text": -Infinity, "answer": "y"}', "a.jsonl:1: -Infinity is no value"),
    ("a.jsonl", '{"text": "x", "answer": ["y"]}', "a.jsonl:1: answer is a list: give a text"),
    ("a.jsonl", '{"text": {"a": 1}, "answer": "y"}', "a.jsonl:1: text is an object"),
    ("a.jsonl", '{"text": "\\ud83d", "answer": "y"}', "a.jsonl:1: text: half of a character at 1"),
    ("a.jsonl", '{"text": "x", "answer": "y\\u0000"}', "a.jsonl:1: answer: a character of code 0"),
    ("a.tsv", "x\0\ty\n", "a.tsv:1: "),
    ("a.jsonl", '{"text": ' + "[" * 99999 + "]" * 99999 + "}", "a.jsonl:1: lists or objects"),
    # one limit for all
    ("a.tsv", f"x\ty\n{LONG}\ty\n", "a.tsv:2: text has 100001 characters, more than 100000"),
    ("a.csv", f"x,y\nx,{LONG}\n", "a.csv:2: answer has 100001 characters"),
    ("a.jsonl", json.dumps({"text": LONG, "answer": "y"}), "a.jsonl:1: text has 100001"),
]


@pytest.mark.parametrize("name, content, message", REFUSED)
def test_what_cannot_be_read_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as stop:
        read_pairs(tmp_path / name)
    assert "\n" not in str(stop.value) and len(str(stop.value)) < 300 + len(str(tmp_path))


def test_values_keep_their_spelling_in_every_format(tmp_path):
    row = '{"text": 1.50, "answer": true}\n{"text": 1e400, "answer": false}\n'
    (tmp_path / "a.jsonl").write_text(row)
    (tmp_path / "a.csv").write_text("1.50,true\n1e400,false\n")
    want = [("1.50", "true"), ("1e400", "false")]
    assert read_pairs(tmp_path / "a.jsonl") == read_pairs(tmp_path / "a.csv") == want
    big = "7" * 5000  # digits that Python would not make a number of
    (tmp_path / "b.jsonl").write_text(f'{{"text": {big}, "answer": "😀"}}')
    assert read_pairs(tmp_path / "b.jsonl") == [(big, "😀")]


def test_what_looks_like_a_header_but_is_none(tmp_path):
    for name, content in {
        "a.csv": "x,a\ny,b\nz,b\n",  # an answer comes once, but there is one other
        "b.csv": "where is it,a\nx,b\nx,b\nx,c\nx,c\n",  # no name of a column
        "c.csv": "text,answer\nquestion,label\n",  # the second row may be anything
        "d.csv": "how do I comment,question\nx,bug\n",
    }.items():
        (tmp_path / name).write_text(content)
        assert len(read_pairs(tmp_path / name)) == content.count("\n") - (name == "c.csv")


def test_a_comma_in_an_answer_needs_quotes(tmp_path):
    (tmp_path / "a.csv").write_text('x,"no, never"\ny,no\n')
    assert read_pairs(tmp_path / "a.csv") == [("x", "no, never"), ("y", "no")]
    (tmp_path / "b.csv").write_text("x,no, never\ny,no\n")
    with pytest.raises(InputError, match="b.csv:1: 3 fields"):
        read_pairs(tmp_path / "b.csv")


def test_texts_without_answers(tmp_path):
    files = {
        "a.txt": "one, two\n\n  three \n",
        "a.tsv": "one, two\nthree\n",
        "a.csv": '"one, two"\nthree\n',
        "b.csv": 'id,text\n1,"one, two"\n2,three\n',
        "a.jsonl": '{"text": "one, two", "id": 1}\n{"text": "three", "answer": null}\n',
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
        assert read_texts(tmp_path / name) == [("one, two", ""), ("three", "")], name
    (tmp_path / "c.csv").write_text("text,answer\nx,yes\ny,\n")
    assert read_texts(tmp_path / "c.csv") == [("x", "yes"), ("y", "")]
    (tmp_path / "d.csv").write_text("sentence\nx\ny\n")
    with pytest.raises(InputError, match="d.csv:1: the columns seem to be called sentence"):
        read_texts(tmp_path / "d.csv")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["", "BOM"])
def test_joined_files_are_one(tmp_path, start, end):
    """With their names of columns, each in its own spelling, and with their byte order marks."""
    parts = ["id,text,answer\n1,x,yes\n\n2,y,no\n", "ID,Text,ANSWER\n\n3,z,yes\n\n\n"]
    for name, delimiter in (("a.csv", ","), ("b.csv", ";"), ("c.tsv", "\t")):
        content = "".join(start + part for part in parts).replace(",", delimiter)
        (tmp_path / name).write_bytes(content.replace("\n", end).encode())
        table = read_table(tmp_path / name, ["text", "answer"])
        assert table.pairs == [("x", "yes"), ("y", "no"), ("z", "yes")]
        assert [row.values[0] for row in table.rows] == ["1", "2", "3"]
        assert [place.rsplit(":")[-1] for place in table.passed_over] == ["3", "5", "6"]
    both = '{"text": "x", "answer": "y"}\n'
    (tmp_path / "a.jsonl").write_text(start + both + start + both, encoding="utf-8")
    assert read_pairs(tmp_path / "a.jsonl") == [("x", "y")] * 2


MAIL = [
    '"Put it in your stereo ... "\tham',
    '"Sold" sign on a door\tham',
    '"open\tspam',
    'close"\tspam',
    '""\tham',
    "Re: 'single'\tham",
    '"\tspam',
    'He said "hi"\tspam',
]


def test_quotes_in_a_mailbox_are_characters_of_its_texts(tmp_path):
    (tmp_path / "a.tsv").write_text("\n".join(MAIL))
    want = [tuple(line.split("\t")) for line in MAIL]
    assert read_pairs(tmp_path / "a.tsv") == want == read_texts(tmp_path / "a.tsv")


def test_quotes_that_a_spreadsheet_set_are_none(tmp_path):
    content = '"text"\t"answer"\n"It is ""late"""\t"yes"\n"a, b"\tno\nplain\t"no"\n'
    (tmp_path / "a.tsv").write_text(content)
    assert read_pairs(tmp_path / "a.tsv") == [
        ('It is "late"', "yes"),
        ("a, b", "no"),
        ("plain", "no"),
    ]


def test_a_line_that_says_what_stands_between_the_fields_is_no_data(tmp_path):
    (tmp_path / "a.csv").write_bytes("\ufeffsep=;\r\ntext;answer\r\na, b;yes\r\n".encode())
    for read in (read_pairs, read_texts):
        assert read(tmp_path / "a.csv") == [("a, b", "yes")]
    (tmp_path / "b.csv").write_text("sep=;\nx;y\nz\n")
    with pytest.raises(InputError, match="b.csv:3: 1 fields"):
        read_pairs(tmp_path / "b.csv")


def test_with_answers_a_table_keeps_its_rows_and_columns(tmp_path):
    """Whatever is asked of it: ids, values of every type, spaces, answers that were there."""
    rows = '{"ID": 7, "text": " x ", "answer": "old", "note": null, "more": [1.50, {"a": true}]}\n'
    rows += '\n{"text": "y", "given answer": "older", "ID": "08"}\n{"text": 1.50}\n'
    (tmp_path / "a.jsonl").write_text(rows)
    table = read_table(tmp_path / "a.jsonl", ["text"])
    assert table.pairs == [("x", "old"), ("y", ""), ("1.50", "")] and table.has_answers
    assert table.others == ["ID", "note", "more", "given answer"]
    content = as_answered(table, ["yes", "", "two\nlines"], "b.jsonl")
    one, two, three = map(json.loads, content.splitlines())
    assert one == {
        "ID": 7,
        "text": " x ",
        "given answer": "old",
        "note": None,
        "more": [1.5, {"a": True}],
        "given given answer": None,
        "answer": "yes",
    }
    assert (two["ID"], two["given given answer"], three["answer"]) == ("08", "older", "two\nlines")
    (tmp_path / "c.csv").write_text(as_answered(table, ["yes", "no", "no"], "c.csv"))
    again = read_table(tmp_path / "c.csv", ["text", "answer"])
    assert again.pairs == [("x", "yes"), ("y", "no"), ("1.50", "no")]
    assert again.rows[0].values[:3] == ["7", " x ".lstrip(), "old"]
    (tmp_path / "d.csv").write_text("id,id,text\n1,2,x\n3,4,x\n")
    twice = read_table(tmp_path / "d.csv", ["text"])
    assert as_answered(twice, ["a", "b"], "e.tsv") == (
        "id\tgiven id\ttext\tanswer\n1\t2\tx\ta\n3\t4\tx\tb\n"
    )


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl", "a.NDJSON"])
def test_what_is_written_is_read_back(tmp_path, name):
    pairs = [*WANT, ("a; b", "no, never"), ('"all of it"', "z"), ("x", "y"), ("1.50", "true")]
    if name != "a.tsv":
        pairs += [("two\nlines\tand a tab", "z")]
    if name not in ("a.tsv", "a.csv"):  # there it would be the names of the columns once more
        pairs += [("text", "answer")]
    (tmp_path / name).write_text(as_file(pairs, name), encoding="utf-8")
    assert read_pairs(tmp_path / name) == pairs


@pytest.mark.parametrize("text", ["a\ttab", "two\nlines", "a\rb", '"quotes"'])
def test_what_a_tsv_cannot_hold_is_not_written(text):
    with pytest.raises(InputError, match="a.tsv: a .tsv cannot hold") as stop:
        as_file([("fine", "x"), (text, "x")], "a.tsv")
    assert "\n" not in str(stop.value) and "fine" not in str(stop.value)
    with pytest.raises(InputError, match="a.csv: a .csv cannot hold .'text', 'answer'"):
        as_file([("fine", "x"), ("text", "answer")], "a.csv")
    with pytest.raises(InputError, match="out.xml: the name ends in none of"):
        as_file([("x", "y")], "out.xml")


def test_the_example_is_varied_and_no_word_decides_it():
    pairs = read_pairs(ROOT / "tutorials" / "tickets.tsv")
    answers = [answer for _, answer in pairs]
    assert len(pairs) >= 80 and len({text for text, _ in pairs}) == len(pairs)
    assert answers.count("urgent") == answers.count("can wait") == len(pairs) / 2
    words = [set(text.lower().replace(",", " ").strip(".?").split()) for text, _ in pairs]
    for word in set().union(*words):
        agree = sum((word in own) == (answer == "urgent") for own, answer in zip(words, answers))
        assert max(agree, len(pairs) - agree) / len(pairs) < 0.62, word
    for length in range(10, 120):
        agree = sum((len(t) > length) == (answer == "urgent") for t, answer in pairs)
        assert max(agree, len(pairs) - agree) / len(pairs) < 0.65
