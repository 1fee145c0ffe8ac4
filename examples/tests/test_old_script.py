"""A test of an old script: the fixture ``pymdc_endpoint`` is all the set-up."""

import pathlib
import runpy

SCRIPT = pathlib.Path(__file__).with_name("old_script.py")


def test_script_uploads(pymdc_endpoint, account, tmp_path, monkeypatch, capsys):
    (tmp_path / "my.key").write_text(account.key_pair.get_private_key())
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(SCRIPT))
    assert capsys.readouterr().out == "holiday\nmy.key\n"
