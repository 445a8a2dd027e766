"""Small helpers that programs written for LLaVA import from here."""


def disable_torch_init() -> None:
    """Do nothing; kept because programs written for LLaVA call it before they load a model.

    Transformers 5 builds models on the meta device, so there is no slow initialisation left to skip.
    """
