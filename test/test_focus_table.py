"""The table that tells each plane's distance from focus."""

import pytest

from evaluation.focus import FocusTable
from model.errors import UserError


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "found no text, expected the columns name,modality,image_z,best_z."),
        ("name;modality\n", "found the columns name;modality, expected the columns name,modality,image_z,best_z."),
        ("\nname,modality,image_z,best_z\n,BF,0,1\n", "line 3 holds ,BF,0,1, expected a name, "
         "a modality (BF, PC or DIC) and two whole numbers."),
        ("name,modality,image_z,best_z\na,BF\n", "line 2 holds a,BF, expected a name, "
         "a modality (BF, PC or DIC) and two whole numbers."),
        ("name,modality,image_z,best_z\na,BF,0,1\na,BF,0,0\n",
         "'a' is listed twice with different planes, expected once."),
        ("name\n" + 200_000 * "x", "line 2 cannot be read as CSV (field larger than field limit (131072))."),
    ],
)  # fmt: skip
def test_a_wrong_focus_table_is_one_sentence(tmp_path, text, fault):
    (tmp_path / "focus.csv").write_text(text)
    with pytest.raises(UserError) as refused:
        FocusTable.read(tmp_path / "focus.csv")
    assert str(refused.value) == f"{tmp_path / 'focus.csv'}: {fault}"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_focus_table_of_a_spreadsheet_program(tmp_path, end):
    path = tmp_path / "focus.csv"
    lines = ["", "name, modality,image_z,best_z,note", "", "a.tiff, BF,3,10", ",,,", "  ", ""]
    path.write_bytes(b"\xef\xbb\xbf" + end.join(lines).encode())
    assert FocusTable.read(path).get("a").z_deviation == 7
    path.write_bytes("name,modality,image_z,best_z\nZürich.tiff,BF,1,1\n".encode("cp1252"))
    with pytest.raises(UserError, match=r"focus.csv: found text that is not UTF-8, expected UTF-8\.$"):
        FocusTable.read(path)
