from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.local import output
from redserve.local.output import MAX_LINE_BYTES, OutputSink

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_lines_are_put_together(tmp_path: Path) -> None:
    lines: list[str] = []
    sink = OutputSink(tmp_path / "log", lines.append)
    for part in (b"one\ntw", b"o\r\n", b"\n", b"thr\xffee"):
        sink.feed(part)
    assert lines == ["one", "two", ""]
    sink.end_of_run()
    sink.end_of_run()
    assert lines == ["one", "two", "", "thr\ufffdee"]
    assert sink.lines == ("one", "two", "", "thr\ufffdee")
    sink.begin_run()
    assert not sink.lines
    sink.close()
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\r\n\nthr\xffee\n"


def test_endless_lines_are_broken(tmp_path: Path) -> None:
    lines: list[str] = []
    sink = OutputSink(tmp_path / "log", lines.append)
    sink.feed(b"x" * (MAX_LINE_BYTES * 2 + 1))
    sink.close()
    assert [len(line) for line in lines] == [MAX_LINE_BYTES] * 2


def test_the_file_stays_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "MAX_FILE_BYTES", 100)
    sink = OutputSink(tmp_path / "log", lambda _line: None)
    for number in range(100):
        sink.feed(f"line {number}\n".encode())
    sink.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["log", "log.1"]
    assert all(file.stat().st_size <= 110 for file in files)
    assert (tmp_path / "log").read_text().endswith("line 99\n")


def test_a_full_disk_is_told_and_survived(tmp_path: Path) -> None:
    lines: list[str] = []
    (tmp_path / "log").symlink_to("/dev/full")
    sink = OutputSink(tmp_path / "log", lines.append)
    sink.feed(b"hello\n")
    assert lines == [f"(not in {tmp_path / 'log'}: No space left on device)", "hello"]
    sink.close()


def test_a_file_that_cannot_be_begun_is_begun_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "MAX_FILE_BYTES", 10)
    lines: list[str] = []
    sink = OutputSink(tmp_path / "log", lines.append)
    sink.feed(b"12345678\n")
    (tmp_path / "log.new").mkdir()
    sink.feed(b"lost\n")
    assert lines[1:] == [f"(not in {tmp_path / 'log'}: Is a directory)", "lost"]
    assert (tmp_path / "log").read_bytes() == b"12345678\n"
    (tmp_path / "log.new").rmdir()
    sink.feed(b"kept\n")
    sink.close()
    assert lines[3:] == ["kept"]
    assert (tmp_path / "log").read_bytes() == b"kept\n"
    assert (tmp_path / "log.1").read_bytes() == b"12345678\n"
