import pytest

from llava.eval.ask.specs import EMBEDDED, Spec, read_specs
from llava.pruners import PRUNERS
from llava.records import InputError


def test_options_follow_a_name_and_become_flags():
    (none, vispruner) = read_specs(" none, vispruner:important_ratio=0.75:positions=original,none")
    assert none == Spec("none") and none.words == ["--pruner", "none"]
    assert vispruner.words == ["--pruner", "vispruner", "--important_ratio=0.75", "--positions=original"]
    assert str(vispruner) == "vispruner, important_ratio=0.75, positions=original" and str(none) == "none"


def test_an_option_that_is_on_needs_no_value(monkeypatch):
    monkeypatch.setattr("llava.eval.ask.specs.option_names", lambda: ["centered"])
    on, told, form = read_specs("divprune:centered,cdpruner:centered=True,cdpruner:centered=plain")
    assert (on.words[2:], told.words[2:], form.words[2:]) == (["--centered"], ["--centered"], ["--centered=plain"])


def test_who_reads_attention_of_the_language_model_gets_a_layer_unless_it_is_named():
    assert [spec.options for spec in read_specs("fastv,fastv:prune_layer=3")] == [
        ("prune_layer=2",),
        ("prune_layer=3",),
    ]


def test_the_embedded_model_is_asked_for_blocks_that_it_has(monkeypatch):
    monkeypatch.setitem(EMBEDDED, "trim", "text_chunking=bos_eos")
    assert read_specs("trim")[0].options == () and read_specs("trim", embedded=True)[0].options != ()
    assert read_specs("trim:text_chunking=release", embedded=True)[0].options == ("text_chunking=release",)


def test_all_is_everything_but_what_is_left_out():
    assert [spec.name for spec in read_specs("all")] == ["none", *PRUNERS]
    assert {spec.name for spec in read_specs("all,-none,-fastv")} == set(PRUNERS) - {"fastv"}
    assert [str(spec) for spec in read_specs("all,cdpruner:theta=0.5")][-1] == "cdpruner, theta=0.5"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "--pruners is missing: all, or some of none, cdpruner"),
        ("-trim", "--pruners is missing"),
        ("all,-nobody", "--pruners: unknown pruner 'nobody'; the known ones are none, cdpruner"),
        ("cdpruner:batch_size=2", "--pruners: 'batch_size=2' is no option of a pruner; these are"),
    ],
)
def test_what_cannot_be_meant_is_refused(text, error):
    with pytest.raises(InputError) as refused:
        read_specs(text)
    assert str(refused.value).startswith(error)
