import subprocess
import sys
import textwrap

import pytest

from lerax_dist.backends._append import Appender


def test_lines_are_added_to_those_there(tmp_path):
    path = tmp_path / "lines"
    path.write_text("one\n")
    appender = Appender.for_lines(path)
    appender.append(b"two\n")
    assert path.read_text() == "one\ntwo\n"
    appender.close()


@pytest.mark.parametrize("whole", ["", "one\n", "x" * 70_000 + "\n"])
@pytest.mark.parametrize("torn", ["half", "y" * 200_000])
def test_half_a_line_left_by_a_crash_is_set_aside(tmp_path, whole, torn):
    path = tmp_path / "lines"
    path.write_text(whole + torn)
    appender = Appender.for_lines(path)
    appender.append(b"next\n")
    appender.close()
    assert path.read_text() == whole + "next\n"
    assert (tmp_path / "lines.torn").read_text() == torn + "\n"


def test_a_whole_file_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "lines"
    path.write_text("one\n")
    Appender.for_lines(path).close()
    assert [file.name for file in tmp_path.iterdir()] == ["lines"]


def test_a_line_that_a_full_disk_cuts_is_whole_when_tried_again(tmp_path):
    # A limit on the size of files replaces the disk.
    program = """
        import resource, signal, sys
        from pathlib import Path
        from lerax_dist.backends._append import Appender
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        appender = Appender.for_lines(Path(sys.argv[1]))
        appender.append(b"first\\n")
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
        for _ in range(3):
            try:
                appender.append(b"second\\n")
            except OSError:
                print("full")
        resource.setrlimit(resource.RLIMIT_FSIZE, (-1, resource.RLIM_INFINITY))
        appender.append(b"second\\n")
        appender.close()
    """
    path = tmp_path / "lines"
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program), str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (result.stdout, result.stderr) == ("full\nfull\nfull\n", "")
    assert path.read_text() == "first\nsecond\n"


def test_half_a_line_does_not_stay_without_a_retry(tmp_path):
    program = """
        import resource, signal, sys
        from pathlib import Path
        from lerax_dist.backends._append import Appender
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        appender = Appender.for_lines(Path(sys.argv[1]))
        appender.append(b"first\\n")
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
        try:
            appender.append(b"second\\n")
        except OSError:
            print("full")
        appender.close()
    """
    path = tmp_path / "lines"
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program), str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (result.stdout, result.stderr) == ("full\n", "")
    assert path.read_text() == "first\n"


def test_a_file_is_closed_twice_without_harm(tmp_path):
    path = tmp_path / "new"
    appender = Appender(path)
    appender.append(b"one")
    appender.append(b"two")
    appender.close()
    appender.close()
    assert path.read_bytes() == b"onetwo"
