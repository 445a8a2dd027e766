"""Names of devices, dtypes and attention, on a machine with and without GPUs."""

import pytest
import torch

from llava.model import devices
from llava.model.devices import check_attention, check_bits, check_device, check_device_map, check_dtype
from llava.model.loading import plan

FLASH = "flash_attention_2"


@pytest.fixture(params=[0, 2])
def gpus(request, monkeypatch):
    """A machine with as many GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    return request.param


@pytest.mark.parametrize(
    "name", ["foo", "", "cuda:7", "cuda:-1", "cuda:x", "mps", "cpu:1", "meta", "gpu", True, None, 1.5]
)
def test_a_device_that_is_not_here_is_named_with_those_that_are(gpus, name):
    with pytest.raises(
        ValueError, match=f"device {str(name)!r}.*valid here: cpu" + ", cuda, cuda:0, cuda:1" * (gpus > 0)
    ):
        check_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:1", torch.device("cuda", 1)])
def test_a_gpu_is_there_or_not(gpus, name):
    if gpus:
        assert check_device(name) == torch.device(name)
    else:
        with pytest.raises(ValueError, match="torch sees no such device; valid here: cpu$"):
            check_device(name)
    assert check_device("cpu").type == "cpu"


@pytest.mark.parametrize(
    "device_map", ["automatic", {"": "cuda:9"}, {"": "foo"}, {"model": "cpu", "lm_head": None}, 1.5]
)
def test_a_device_map_names_devices_or_a_way_to_spread(gpus, device_map):
    with pytest.raises(ValueError, match="device_map"):
        check_device_map(device_map)


@pytest.mark.parametrize("device_map", [None, "auto", "balanced", "cpu", {"": "cpu"}, {"lm_head": "disk"}])
def test_device_maps_of_accelerate_are_taken(gpus, device_map):
    check_device_map(device_map)


@pytest.mark.parametrize("value", ["float8", "int8", torch.int64, torch.bool, 16, True, float])
def test_a_dtype_is_one_of_floating_point(value):
    with pytest.raises(ValueError, match="vision_dtype .* is not one of float16, bfloat16, float32"):
        check_dtype("vision_dtype", value)


def test_flash_attention_says_what_it_lacks(gpus, monkeypatch):
    if not gpus:
        with pytest.raises(ValueError, match="needs a GPU; valid without one: sdpa, eager"):
            check_attention(FLASH, False, torch.float16)
        return
    with pytest.raises(ValueError, match="needs a GPU"):
        check_attention(FLASH, True, torch.float16)
    with pytest.raises(ValueError, match="not in float32"):
        check_attention(FLASH, False, torch.float32)
    monkeypatch.setattr(devices, "is_flash_attn_2_available", lambda: False)
    with pytest.raises(ImportError, match="flash-attn"):
        check_attention(FLASH, False, torch.float16)
    monkeypatch.setattr(devices, "is_flash_attn_2_available", lambda: True)
    check_attention(FLASH, False, torch.float16)


def test_few_bits_need_their_package_and_one_number(monkeypatch):
    with pytest.raises(ValueError, match="exclude each other"):
        check_bits(True, True)
    with pytest.raises(ValueError, match="load_8bit must be True or False, not 'no'"):
        check_bits("no", False)
    monkeypatch.setattr(devices, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"bitsandbytes: pip install '\.\[quant\]'"):
        check_bits(False, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "foo"}, "device 'foo'"),
        ({"device_map": None, "device": "cuda:7"}, "device 'cuda:7'"),
        ({"device_map": {"": "cuda:7"}}, "device_map 'cuda:7'"),
        ({"use_flash_attn": True}, "flash_attention_2 needs a GPU"),
        ({"attn_implementation": "flash"}, "'flash' is not one of sdpa, eager, flash_attention_2"),
        ({"use_flash_attn": True, "attn_implementation": "eager"}, "exclude each other"),
        ({"dtype": "float16", "torch_dtype": "bfloat16"}, "two names of one option"),
        ({"anyres": None}, "anyres None is not one of native, fixed"),
        ({"visual_token_num": True}, "visual_token_num must be an integer"),
        ({"keep_ratio": float("nan")}, "keep_ratio must be a number"),
        ({"cuda_graphs": True}, "cuda_graphs needs a CUDA device, such as cuda; here it is cpu"),
        ({"cuda_graphs": True, "device": "cpu"}, "cuda_graphs needs a CUDA device"),
        ({"cuda_graphs": "yes"}, "cuda_graphs must be True or False, not 'yes'"),
    ],
)
def test_loading_refuses_what_cannot_work_before_it_looks_at_the_checkpoint(monkeypatch, options, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=message):
        plan(**options)


def test_where_there_is_no_gpu_the_cpu_is_taken_with_a_warning_if_cuda_was_named(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert plan()[1].device_map == {"": "cpu"} and not caplog.text
    assert plan(device="cuda")[1].device_map == {"": "cpu"} and "no CUDA device" in caplog.text
    assert plan(dtype="bf16", torch_dtype=torch.bfloat16)[1].dtype == torch.bfloat16
