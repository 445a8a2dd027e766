from llava.web.visits import Visits


def uploaded(folder, name):
    path = folder / name / "a.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_what_a_visitor_uploaded_goes_when_they_leave(tmp_path):
    visits = Visits(tmp_path)
    one, two, other = (uploaded(tmp_path, name) for name in ("1", "2", "3"))
    for path in (one, two, one):
        visits.note("ada", path)
    visits.note("bob", other)
    visits.end("ada")
    assert not one.exists() and not two.exists() and other.exists()
    visits.end("ada")
    visits.end(None)
    visits.end("nobody")
    assert other.exists()


def test_a_picture_of_two_visitors_stays_until_both_have_left(tmp_path):
    visits, path = Visits(tmp_path), uploaded(tmp_path, "1")
    visits.note("ada", path)
    visits.note("bob", path)
    visits.end("ada")
    assert path.exists()
    visits.end("bob")
    assert not path.exists()


def test_the_page_s_own_files_stay(tmp_path):
    visits, path = Visits(tmp_path, tmp_path / "scenes"), uploaded(tmp_path, "scenes")
    visits.note("ada", path)
    visits.end("ada")
    assert path.exists()


def test_nothing_outside_the_folder_is_ever_deleted(tmp_path):
    inside, outside = tmp_path / "in", uploaded(tmp_path, "out")
    inside.mkdir()
    (inside / "link").symlink_to(outside)
    visits = Visits(inside)
    for path in (outside, inside / ".." / "out" / "a.png", inside / "link"):
        assert not visits.holds(path)
        visits.note("ada", path)
    visits.end("ada")
    assert outside.exists()
