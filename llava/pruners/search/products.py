"""Products of tokens, which searches compare. No value is read back to the host, but on the CPU.

On the CPU work is what counts: tokens are not copied and half of a symmetric product is left out. On any other device
it is the number of operations, each of which waits for its launch.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad, threshold

from llava.pruners.search.device import on_cpu

ALIGNMENT = 16  # float32 numbers in a cache line
LARGEST_GRAM = 4096  # tokens of which all pairs are held at once, 64 MiB; more are searched by rows, in linear memory
ROWS_AT_ONCE = 256  # of a matrix that is not held
ROWS_OF_A_LAUNCH = 1024  # from which on half of a product takes a GPU longer than launching its parts
SHORTEST = 1e-12  # a token that is no longer has no direction


def measured(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Copies of the tokens with zeros up to whole cache lines, and their lengths, (..., D) -> (..., D'), (..., 1).

    A non-finite entry counts as zero. The length is inf for a token without direction, so that dividing by it leaves
    zeros: one too short to have any, or longer than float32 can tell. Matrix products round according to the alignment
    of their operands; padded, every tile of a batch is aligned alike, and its choice does not depend on the others.
    """
    tokens = tokens.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    if rest := tokens.shape[-1] % ALIGNMENT:
        tokens = pad(tokens, (0, ALIGNMENT - rest))
    return tokens, threshold(tokens.norm(dim=-1, keepdim=True), SHORTEST, torch.inf)


def unit_vectors(tokens: Tensor) -> Tensor:
    """Scale every token to length one and pad with zeros to whole cache lines, (..., D) -> (..., D').

    A token without direction becomes zero; see ``measured``.
    """
    tokens, length = measured(tokens)
    return tokens.div_(length)


def directions(tokens: Tensor) -> tuple[Tensor, Tensor | None]:
    """Tokens and the factors that make unit vectors of them, (B, N, D) -> (B, N, D'), (B, N).

    On the CPU as ``factored``. Elsewhere the tokens are unit vectors, and no factors are needed.
    """
    return factored(tokens) if on_cpu(tokens) else (unit_vectors(tokens), None)


def factored(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """As ``directions`` on the CPU, where it can be seen whether a tile holds finite numbers.

    Scaling a product by the factors costs less work than scaling the tokens, which would be copied: those of a tile
    that are finite and aligned are returned as they are. The factor of a token without direction is zero.
    """
    if tokens.shape[-1] % ALIGNMENT or not tokens.is_contiguous() or tokens.data_ptr() % (4 * ALIGNMENT):
        tokens = pad(tokens, (0, -tokens.shape[-1] % ALIGNMENT)).contiguous()
    lengths = tokens.norm(dim=-1)
    odd = ~lengths.isfinite().all(dim=1)  # (B,)
    if odd.any():
        tokens = tokens.clone()
        tokens[odd] = unit_vectors(tokens[odd])
        lengths = tokens.norm(dim=-1)
    return tokens, lengths.reciprocal().where(lengths > SHORTEST, 0.0)


def gram(tokens: Tensor, weight: Tensor | None = None) -> Tensor:
    """Products w[i] <i, j> w[j] of every pair in a tile, (B, N, D), (B, N) -> (B, N, N), symmetric to the last bit.

    Symmetry makes "j is i's nearest" and "i is j's nearest" the same number, so that ties break by index and not
    by rounding. On the CPU and of many tokens only blocks on and above the diagonal are multiplied, about half of the
    full product.
    """
    batch, num_tokens, _ = tokens.shape
    size = max(64, -(-num_tokens // 8)) if on_cpu(tokens) else ROWS_OF_A_LAUNCH
    if num_tokens <= size and weight is None:
        products = tokens @ tokens.mT
        return torch.maximum(products, products.mT)
    products = tokens.new_empty(batch, num_tokens, num_tokens)
    for start, rows in _upper_rows(tokens, weight, size):
        block = slice(start, start + rows.shape[1])
        products[:, block, start:] = rows
        products[:, start:, block] = rows.mT
    return products


def fits_gram(num_tokens: int) -> bool:
    """Whether a tile is small enough to hold the products of all its pairs."""
    return num_tokens <= LARGEST_GRAM


def largest_product(tokens: Tensor, weight: Tensor | None = None) -> Tensor:
    """The largest of the products w[i] <i, j> w[j] of each token with the others, (B, N, D), (B, N) -> (B, N).

    As the maximum over ``gram`` without its diagonal, in memory linear in N.
    """
    largest = tokens.new_full(tokens.shape[:2], -torch.inf)
    for start, rows in _upper_rows(tokens, weight, size=ROWS_AT_ONCE):
        rows.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
        block = slice(start, start + rows.shape[1])
        largest[:, start:] = torch.maximum(largest[:, start:], rows.amax(dim=1))
        largest[:, block] = torch.maximum(largest[:, block], rows.amax(dim=2))
    return largest


def product_row(tokens: Tensor, weight: Tensor | None, pick: Tensor) -> Tensor:
    """One row of ``gram`` for every tile, (B, N, D), (B, N), (B, 1) -> (B, N)."""
    own = tokens.gather(1, pick.unsqueeze(2).expand(-1, 1, tokens.shape[2]))  # (B, 1, D)
    row = (own @ tokens.mT).squeeze(1)
    return row if weight is None else row * (weight.gather(1, pick) * weight)


def _upper_rows(tokens: Tensor, weight: Tensor | None, size: int) -> Iterator[tuple[int, Tensor]]:
    """Rows of ``gram`` on and right of the diagonal, ``size`` at a time: the first row, and (B, size, N - first)."""
    for start in range(0, tokens.shape[1], size):
        block = slice(start, start + size)
        rows = tokens[:, block] @ tokens[:, start:].mT
        if weight is not None:
            rows *= weight[:, block].unsqueeze(2) * weight[:, start:].unsqueeze(1)
        corner = rows[..., : rows.shape[1]]
        corner.copy_(torch.maximum(corner, corner.mT))
        yield start, rows
