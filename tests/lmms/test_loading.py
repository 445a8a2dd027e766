import pytest

from llava.asking.batch import positive
from llava.asking.processes import Processes
from llava.lmms.loading import place, refuse_unknown, require_name


def test_an_unknown_argument_is_named_together_with_the_valid_ones():
    with pytest.raises(TypeError, match="llava_pruned has no argument prunner; its arguments are anyres, pruner"):
        refuse_unknown({"prunner", "anyres"}, {"pruner", "anyres"}, "llava_pruned")


@pytest.mark.parametrize("option", ["visual_token_num", "keep_ratio", "important_ratio"])
def test_a_budget_or_an_option_needs_the_name_of_a_pruner(option):
    require_name({option: 0.5, "pruner": "vispruner"})
    with pytest.raises(ValueError, match=f"{option} without a pruner"):
        require_name({option: 0.5})


@pytest.mark.parametrize("value", [3, "3"])
def test_a_count_is_a_number_or_a_text(value):
    assert positive("batch_size", value) == 3


@pytest.mark.parametrize("value", ["auto", "auto:4", 0, -1, 2.5, None])
def test_a_count_that_is_none_is_named(value):
    with pytest.raises(ValueError, match="batch_size must be a whole number"):
        positive("batch_size", value)


def test_a_process_of_several_has_its_own_device_and_no_map_over_all():
    assert place(Processes(1, 2, "cuda:1"), None) == "cuda:1"
    assert place(Processes(device="cpu"), "auto") == "cpu"
    with pytest.raises(ValueError, match="device_map=auto"):
        place(Processes(1, 2, "cuda:1"), "auto")
