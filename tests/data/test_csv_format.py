"""CSV files as people have them: what is recognised is written down, and read as it was meant."""

from __future__ import annotations

import json
import re
import zipfile
from contextlib import suppress

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpyxl import Workbook
from PIL import Image

import mip
from mip.data import CsvFormat, check_header, csv_remarks, sniff_csv
from mip.errors import DataError, FieldError, MipWarning

words = st.text(st.characters(codec="cp1252", exclude_categories=["Cc", "Zl", "Zp"]), min_size=1)
cells = words.map(str.strip).filter(bool)


@given(
    rows=st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=5),
    sep=st.sampled_from([",", ";", "\t", "|"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"]),
    suffix=st.sampled_from([".csv", ".tsv"]),
)
def test_what_is_written_in_any_form_is_read_as_it_was(
    tmp_path_factory, rows, sep, encoding, suffix
):
    path = tmp_path_factory.mktemp("csv") / f"t{suffix}"
    frame = pd.DataFrame(rows, columns=["a", "é" if encoding != "utf-8" else "b", "c"])
    frame.to_csv(path, sep=sep, encoding=encoding, index=False, quoting=1)
    table = mip.read(path, CsvFormat(sep, encoding))
    assert table.frame.astype(object).equals(frame.astype(object))


@pytest.mark.parametrize("sep", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_form_is_recognised(tmp_path, sep, encoding, suffix):
    path, frame = tmp_path / f"t{suffix}", pd.DataFrame({"ä": ["1", "2"], "b": ["x, y", "z|; y"]})
    frame.to_csv(path, sep=sep, encoding=encoding, index=False)
    assert mip.read(path, sniff_csv(path)).frame.astype(object).equals(frame.astype(object))


@pytest.mark.parametrize(
    ("text", "encoding", "error", "option", "value"),
    [
        ("a;b\n1;3,5\n", "utf-8", "the header has one name, 'a;b'", "sep", ";"),
        ("a|b\n1|2\n", "utf-8", "the header has one name, 'a|b'", "sep", "|"),
        ("a;b,c\n1;2,3,4\n", "utf-8", "row 0 has 3 cells, but the header has 2", "sep", ";"),
        (
            "a,b\n1,ö\n",
            "cp1252",
            "line 2 has a byte 0xf6, which is not utf-8",
            "encoding",
            "cp1252",
        ),
        (
            "a,b\n1,ö\n",
            "utf-16",
            "line 1 has a byte 0xff, which is not utf-8",
            "encoding",
            "utf-16",
        ),
    ],
)
def test_a_file_that_is_read_wrongly_says_how_to_read_it(
    tmp_path, text, encoding, error, option, value
):
    path = tmp_path / "t.csv"
    path.write_text(text, encoding=encoding)
    with pytest.raises(DataError) as caught:
        mip.read(path)
    found = f"separated by '{value}'" if option == "sep" else value
    assert str(caught.value) == (
        f"t.csv: not a readable CSV table: {error}; it seems to be {found}: "
        f"data.format.{option} = '{value}'"
    )
    assert len(mip.read(path, sniff_csv(path)).columns) == 2


@pytest.mark.parametrize("text", ["a|b\n1\n", "a\nx;y\n", "a;b\n1;2\n"])
def test_a_table_may_have_one_column(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    assert len(mip.read(tmp_path / "t.csv", CsvFormat(sep=",")).columns) == 1


def test_a_photo_in_a_cell_may_be_long(tmp_path):
    path, photo = tmp_path / "t.csv", "x" * 200_000
    path.write_text(f"photo;price\n{photo};3\n")
    table = mip.read(path, sniff_csv(path))
    assert table[0] == {"photo": photo, "price": "3"}


def test_blanks_around_names_are_no_part_of_them(tmp_path):
    (tmp_path / "t.csv").write_text(" a ,b\n1,2\n")
    assert mip.read(tmp_path / "t.csv").columns == ["a", "b"]


def test_a_row_in_the_place_of_names_is_asked_about(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("5.1,3.5,setosa\n4.9,3.0,setosa\n")
    with pytest.raises(DataError, match=r"looks like a row: 5.1, 3.5, setosa; .* --names A,B,C"):
        check_header(mip.read(path))
    named = mip.read(path, CsvFormat(names=["long", "wide", "kind"]))
    assert named[0] == {"long": "5.1", "wide": "3.5", "kind": "setosa"}


@pytest.mark.parametrize(("field", "value"), [("sep", ";;"), ("sep", '"'), ("encoding", "utf9")])
def test_a_form_that_no_file_has_is_refused(field, value):
    with pytest.raises(FieldError, match=field):
        CsvFormat(**{field: value})


def write_folder(folder, suffix, parts):
    rows = [{"file_name": f"{k}.png", "size": k} for k in range(3)]
    for part in parts:
        (folder / part).mkdir(parents=True, exist_ok=True)
        for row in rows:
            Image.new("RGB", (4, 4), (80 * row["size"], 0, 0)).save(
                folder / part / row["file_name"]
            )
        path = folder / part / f"metadata{suffix}"
        if suffix == ".csv":
            pd.DataFrame(rows).to_csv(path, index=False)
        elif suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            pd.DataFrame(rows).to_parquet(path)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_folder_of_images_with_metadata_is_a_table(tmp_path, suffix):
    write_folder(tmp_path, suffix, ["."])
    table = mip.read(tmp_path)
    assert table.columns == ["file_name", "size"]
    assert table.texts("file_name").tolist() == ["0.png", "1.png", "2.png"]
    assert (table.root / table[2]["file_name"]).is_file()


def test_folders_of_parts_with_metadata_are_parts(tmp_path):
    write_folder(tmp_path, ".csv", ["train", "validation", "test"])
    train, valid, test = mip.split(tmp_path, column="part")
    assert [len(train), len(valid), len(test)] == [3, 3, 3]
    assert valid.texts("file_name")[0] == "validation/0.png"
    (tmp_path / "test/metadata.csv").write_text("image,size\n0.png,1\n")
    with pytest.raises(DataError, match=r"there is no column 'file_name', which names images"):
        mip.read(tmp_path)


def test_the_first_sheet_of_a_workbook_is_a_table(tmp_path):
    frame = pd.DataFrame({"area": [70.5, None], "town": ["Ulm", "NA"]})
    frame.assign(sold=pd.Timestamp("2024-12-31")).to_excel(tmp_path / "t.xlsx", index=False)
    table = mip.read(tmp_path / "t.xlsx")
    assert table.numbers("area")[0] == 70.5
    assert table.texts("town").tolist() == ["Ulm", "NA"]
    assert table.timestamps("sold").tolist() == [20088.0] * 2
    (tmp_path / "no.xlsx").write_text("area\n1\n")
    with pytest.raises(DataError, match=r"no.xlsx: not a readable workbook"):
        mip.read(tmp_path / "no.xlsx")


def test_parts_of_a_run_are_read_as_the_spec_says(tmp_path):
    frame = pd.DataFrame({"x": ["1,5", "2,5", "3,5", "4,5"] * 4, "y": range(16)})
    for name in ("train", "valid"):
        frame.to_csv(tmp_path / f"{name}.csv", sep=";", index=False)
    spec = mip.parse("""
[data]
format = { sep = ";" }
[data.columns.x]
decimal = ","
[branch.x]
kind = "continuous"
columns = ["x"]
[head]
kind = "regression"
column = "y"
[train]
epochs = 1
""")
    done = mip.run(spec, tmp_path / "train.csv", tmp_path / "valid.csv")
    assert "valid/loss" in done.scores


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_that_is_surely_in_another_encoding_is_read_in_it(tmp_path, encoding):
    path = tmp_path / "new.csv"
    path.write_text("Marke\n\u0160koda\n", encoding=encoding)
    with pytest.warns(MipWarning, match="is in utf-.*, and read so, though .* = 'cp1252'"):
        table = mip.read(path, CsvFormat(encoding="cp1252"))
    assert table.texts("Marke").tolist() == ["\u0160koda"]
    path.write_bytes(b"Marke\n\x8akoda\n")
    assert mip.read(path, CsvFormat(encoding="cp1252")).texts("Marke")[0] == "\u0160koda"


ROWS = "town{0}year{0}price\nUlm{0}2023{0}1.5\nBonn{0}2024{0}2.5\n"


@pytest.mark.parametrize(
    ("above", "skip_rows"),
    [
        ("Sales report 2024\n", 1),
        ("Sales report 2024\n\n", 2),
        ("Sales report 2024{0}{0}\n{0}{0}\n", 2),
        ("# made by Ann\n# of 2024, in euros\n", 2),
        ('"Sales, in ""euros"""\n', 1),
    ],
)
@pytest.mark.parametrize("sep", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_lines_above_the_table_are_skipped_and_said(tmp_path, above, skip_rows, sep, encoding):
    path = tmp_path / "t.csv"
    path.write_bytes((above + ROWS).format(sep).encode(encoding))
    form = sniff_csv(path)
    assert form.skip_rows == skip_rows
    assert mip.read(path, form)[1] == {"town": "Bonn", "year": "2024", "price": "2.5"}
    assert f"skip_rows = {skip_rows} (above the names of the columns:" in csv_remarks(form, path)[0]


def test_a_spec_has_how_its_table_is_written(tmp_path):
    path, form = tmp_path / "t.csv", CsvFormat("whitespace", "koi8-r", skip_rows=2)
    rows = "".join(f"{k % 7} {k} {k * 1.5}\n" for k in range(40))
    path.write_text(f"\u0426\u0435\u043d\u044b\n\nage area price\n{rows}", encoding="koi8-r")
    made = mip.spec.make_draft(mip.read(path, form), "price", "t.csv", form)
    (tmp_path / "t.toml").write_text(made.text, encoding="utf-8")
    assert mip.load_spec(tmp_path / "t.toml").data.format == form
    assert mip.parse(mip.spec.dump(mip.parse(made.text))).data.format == form


@pytest.mark.parametrize(
    "text",
    [
        "a,b,c\n1,,\n,,3\n",
        ",a,b\n0,1,2\n1,3,4\n",
        "mpg\nMazda,21\nFiat,32\n",
        "#id,x\n1,2\n3,4\n",
        "a\n1\n2\n",
        "a,b,c\n,,\n1,2,3\n",
    ],
)
def test_no_row_and_no_name_is_taken_for_a_title(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    assert sniff_csv(tmp_path / "t.csv").skip_rows == 0


@given(
    rows=st.lists(st.tuples(cells, cells, cells), min_size=2, max_size=5),
    names=st.lists(cells, min_size=3, max_size=3, unique_by=str.strip),
    missing=st.sets(st.tuples(st.integers(0, 4), st.integers(0, 2))),
)
def test_the_rows_of_a_table_with_names_are_all_read(tmp_path_factory, rows, names, missing):
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    frame = pd.DataFrame(rows, columns=[f"n{name}" for name in names])
    for row, column in missing:
        if row < len(frame):
            frame.iat[row, column] = ""
    frame.to_csv(path, index=False, quoting=1)
    assert sniff_csv(path).skip_rows == 0


@pytest.mark.parametrize("form", [CsvFormat(), CsvFormat(sep=";"), None])
def test_a_separator_that_a_file_declares_is_its_own(tmp_path, form):
    path = tmp_path / "t.csv"
    path.write_text("sep=;\n" + ROWS.format(";"))
    assert mip.read(path, form or sniff_csv(path)).columns == ["town", "year", "price"]
    path.write_text("sep=;\nReport\n" + ROWS.format(";"))
    assert sniff_csv(path) == CsvFormat(sep=";", skip_rows=2)
    assert len(mip.read(path, sniff_csv(path))) == 2


def test_a_title_that_is_read_as_the_names_says_the_cure(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("Sales\n" + ROWS.format(","))
    with pytest.raises(DataError, match=r"begin below line 1: data.format.skip_rows = 1$"):
        mip.read(path)
    path.write_text("Sales\n" + ROWS.format(",") + "Total\n")
    with pytest.raises(DataError, match=r"has 1; if it is a title: .* mip new --skip-rows"):
        mip.read(path)
    with pytest.raises(DataError, match=r"row 2 has 1 cell, but the header has 3$"):
        mip.read(path, sniff_csv(path, skip_rows=1))


def test_columns_that_blanks_divide(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("town    year  price\n'Ulm'   2023    1.5\nBonn\t2024\t 22.5\n")
    form = sniff_csv(path)
    assert form.sep == "whitespace"
    assert mip.read(path, form)[1] == {"town": "Bonn", "year": "2024", "price": "22.5"}
    path.write_text("town         price\nNew York   1.5\nBonn   22.5\n")
    assert sniff_csv(path) == CsvFormat()
    with pytest.raises(DataError, match=r"the names 'town', 'price'; .*: save it as CSV"):
        check_header(mip.read(path))


def test_columns_of_one_name_or_none_say_the_cure(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,a\n1,2\n")
    with pytest.raises(DataError, match=r"duplicate column 'a' in the header; rename one of them"):
        mip.read(path)
    path.write_text("a,,\n1,2,3\n")
    with pytest.raises(DataError, match=r"2 columns have no name in the header; name them"):
        mip.read(path)


FOREIGN = {
    "iso8859-2": "miasto\nBia\u0142ystok\n\u017c\u00f3\u0142ty\nW\u0105chock\nPi\u0142a\n",
    "cp1251": "\u0433\u043e\u0440\u043e\u0434\n\u041c\u043e\u0441\u043a\u0432\u0430\n",
    "koi8-r": "\u0433\u043e\u0440\u043e\u0434\n\u041c\u043e\u0441\u043a\u0432\u0430\n",
    "cp1253": "\u03c0\u03cc\u03bb\u03b7\n\u0391\u03b8\u03ae\u03bd\u03b1\n",
    "shift_jis": "\u90fd\u5e02\n\u6771\u4eac\n\u3055\u3044\u305f\u307e\u5e02\n",
    "gb18030": "\u57ce\u5e02\n\u5317\u4eac\n\u4e0a\u6d77\n\u6df1\u5733\n",
}


@pytest.mark.parametrize("encoding", FOREIGN)
def test_a_file_of_another_script_names_likely_encodings(tmp_path, encoding):
    path = tmp_path / "t.csv"
    path.write_bytes(FOREIGN[encoding].encode(encoding))
    with pytest.raises(DataError, match=rf"perhaps in .*{encoding} \('.*--encoding "):
        sniff_csv(path)
    with pytest.raises(DataError, match=rf"not utf-8; it is neither .*{encoding} \('"):
        mip.read(path)
    column = FOREIGN[encoding].split("\n")[0]
    form = sniff_csv(path, encoding=encoding)
    assert mip.read(path, form).texts(column).tolist() == FOREIGN[encoding].split("\n")[1:-1]


@pytest.mark.parametrize(
    "text",
    [
        "ville\nOrl\u00e9ans\nl\u2019\u00e9t\u00e9\n\u00c0 \u2013 B\n",
        "Gr\u00f6\u00dfe\n5 m\u00b2\n30 \u00b0C\n\u20ac 5\n\u00bfQu\u00e9?\n\u00ab\u00e9\u00bb\n",
        "cost_\u00a3m\n\u00a35\n\u00a7 5\n5 \u00b5m\n3\u00bd\n",
    ],
)
def test_western_texts_are_read_as_such(tmp_path, text):
    (tmp_path / "t.csv").write_text(text, encoding="cp1252")
    assert sniff_csv(tmp_path / "t.csv").encoding == "cp1252"


@pytest.mark.parametrize("name", ["rot13", "base64", "undefined", "idna", "unicode_escape", "x\0"])
def test_codecs_that_are_no_encodings_of_files_are_refused(name):
    with pytest.raises(FieldError, match="encoding"):
        CsvFormat(encoding=name)


def workbook(path, rows, merged=()):
    book = Workbook()
    for row in rows:
        book.active.append(row)
    for area in merged:
        book.active.merge_cells(area)
    book.save(path)
    return path


SHEET = [["town", "year", "price"], ["Ulm", 2023, 1.5], [None, 2024, 2.5], ["Bonn", 2024, None]]


def test_titles_of_a_workbook_are_left_out(tmp_path):
    path = workbook(tmp_path / "t.xlsx", [["Sales", 2024], [], *SHEET], ["A1:C1"])
    with pytest.warns(MipWarning, match=r"t.xlsx: left out what is above .*: 'Sales"):
        table = mip.read(path)
    assert table.frame.equals(mip.read(workbook(tmp_path / "u.xlsx", SHEET)).frame)


def test_blanks_of_merged_cells_are_counted(tmp_path):
    path = workbook(tmp_path / "t.xlsx", SHEET, ["A2:A3"])
    want = (
        r"t.xlsx, column 'town': 1 blank cell is merged with one above \(A2:A3\); unmerge them "
        r"and fill down, or frame\['town'\] = frame\['town'\].ffill\(\)"
    )
    with pytest.warns(MipWarning, match=want):
        table = mip.read(path)
    assert table.cells("town") == ["Ulm", None, "Bonn"]


def test_formulas_that_nothing_has_computed_are_refused(tmp_path):
    path = workbook(tmp_path / "t.xlsx", [*SHEET, ["Kiel", 2025, "=2*C2"]])
    want = r"t.xlsx: C5 has no value, as no program .*: open the file in a spreadsheet program"
    with pytest.raises(DataError, match=want):
        mip.read(path)
    with zipfile.ZipFile(path) as old:
        files = {name: old.read(name) for name in old.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    files[sheet] = re.sub(rb"</f><v ?/>|</f><v></v>", b"</f><v>3</v>", files[sheet])
    with zipfile.ZipFile(path, "w") as new:
        for name, data in files.items():
            new.writestr(name, data)
    assert mip.read(path).numbers("price")[3] == 3


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8", "shift_jis", "cp932"])
@given(data=st.binary(max_size=40))
def test_whatever_a_file_holds_is_recognised_or_a_named_error(tmp_path_factory, data, encoding):
    path = tmp_path_factory.mktemp("bytes") / "t.csv"
    path.write_bytes(data)
    for given_encoding in ("", encoding):
        with suppress(DataError):
            mip.read(path, sniff_csv(path, encoding=given_encoding))
