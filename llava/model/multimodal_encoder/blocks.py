"""The blocks of CLIP's vision side, run as far as features and the cues of blocks need them."""

from collections.abc import Sequence

from torch import Tensor, nn

from llava.selecting.attention import (
    LAST_BLOCK_CUES,
    SELECTED_BLOCK_CUES,
    cls_row,
    cues_of,
    queries_and_keys,
    run_block,
)

QUERY_ROWS = 8
"""Products of few rows round by their number: with eight where one would do, an image's attention is the same however
many images are beside it."""
OF_SELECTED = SELECTED_BLOCK_CUES | {"deep_attention"}


def run_blocks(
    blocks: Sequence[nn.Module], hidden_states: Tensor, depth: int, needs: frozenset[str], object_layer: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Run the first ``depth`` blocks, and of the others those that a cue needs.

    Args:
        hidden_states: (B, 1 + N, C) the embeddings.
        needs: names of cues.
        object_layer: the block of ``object_attention``, counted from 1.

    Returns:
        What the first ``depth`` blocks return, (B, 1 + N, C), and the cues of blocks in ``needs``, of patches alone.
    """
    reads = {depth - 1: needs & OF_SELECTED}
    if "object_attention" in needs:
        reads[object_layer - 1] = reads.get(object_layer - 1, frozenset()) | {"object_attention"}
    of_last = needs & LAST_BLOCK_CUES
    stop = max(depth, len(blocks) if of_last else 0, *(index + 1 for index, names in reads.items() if names), 0)
    cues, output = {}, hidden_states if depth == 0 else None  # what is held needlessly here is memory of every block
    for index, block in enumerate(blocks[:stop]):
        names = reads.get(index)
        if of_last and index == len(blocks) - 1:
            cues |= cues_of(of_last, *queries_and_keys(block, hidden_states, QUERY_ROWS), cls_row)
        if index >= depth and index + 1 == stop:  # nobody reads what it returns
            cues |= cues_of(names, *queries_and_keys(block, hidden_states), cls_row) if names else {}
        elif names:
            hidden_states, *read = run_block(block, hidden_states)
            cues |= cues_of(names, *read, cls_row)
        else:
            hidden_states = block(hidden_states, None)
        output = hidden_states if index + 1 == depth else output
    return output, {name: cue[:, 1:] for name, cue in cues.items()}
