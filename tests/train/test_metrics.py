from pathlib import Path

from lovecraft.train.metrics import NAME, Metrics, newest, read


def test_rows_behind_the_checkpoint_are_cut_off(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, keep=0)
    metrics.write(step=1)
    length = metrics.sync()
    metrics.write(step=2)
    metrics.close()
    assert read(tmp_path) == [{"step": 1}, {"step": 2}]
    again = Metrics(tmp_path, keep=length)
    again.write(step=3)
    again.close()
    assert read(tmp_path) == [{"step": 1}, {"step": 3}]


def test_a_file_shorter_than_was_saved_is_not_filled_up(tmp_path: Path) -> None:
    Metrics(tmp_path, keep=100).close()
    assert (tmp_path / NAME).read_bytes() == b""


def test_a_row_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('{"step": 1}\n{"st')
    assert read(tmp_path) == [{"step": 1}]


def test_rows_behind_one_that_a_power_failure_cut_short_are_left_out(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('{"step": 1}\n{"step": 2}\n{"st\0\0\0\0\n{"step": 4}\n')
    assert read(tmp_path) == [{"step": 1}, {"step": 2}]


def test_a_run_without_rows_has_none(tmp_path: Path) -> None:
    assert read(tmp_path) == []


def test_the_newest_rows_are_found_without_reading_all(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, keep=0)
    metrics.write(step=0, split="validation", loss=3.0, tokens=1)
    for step in range(1, 6):
        metrics.write(step=step, loss=float(step))
    metrics.close()
    (tmp_path / NAME).write_text("damaged\n" + (tmp_path / NAME).read_text() + '{"st')
    training, measured = newest(tmp_path, 2)
    assert [row["step"] for row in training] == [5, 4]
    assert measured is not None
    assert measured["loss"] == 3.0
    assert newest(tmp_path / "none", 2) == ([], None)
