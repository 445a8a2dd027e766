"""The image processor of a CLIP checkpoint, checked."""

from transformers import CLIPImageProcessorPil


def check_processor(processor: CLIPImageProcessorPil, side: int) -> None:
    """Raise ValueError for one that makes no images of ``side`` x ``side`` pixels, or names no mean and deviation."""
    crop = processor.crop_size
    for name in ("image_mean", "image_std"):
        values = getattr(processor, name)
        if (
            not isinstance(values, (list, tuple))
            or len(values) != 3
            or not all(type(v) in (int, float) for v in values)
        ):
            raise ValueError(f"{name} {values!r} is not three numbers")
    if processor.do_center_crop and (crop["height"], crop["width"]) != (side, side):
        raise ValueError(f"crop_size is {crop['width']} x {crop['height']}, the tower reads {side} x {side} pixels")
