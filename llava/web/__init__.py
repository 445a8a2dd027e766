"""A page in the browser that asks a picture with two pruners side by side. Needs the extra ``web``."""
