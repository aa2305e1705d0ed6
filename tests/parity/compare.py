"""How far logits are from the true ones, row by row, in double precision."""

import torch

Comparison = dict[str, float]
METRICS = ["cosine_mean", "cosine_min", "kl_mean", "kl_max", "top1"]
CHUNK_ROWS = 256  # of 152,064 values: two chunks and their copies in double take 2 GB


def compare(truth: torch.Tensor, other: torch.Tensor) -> Comparison:
    """Both [T, V]. Cosine and KL(truth || other) over rows; top1: share of rows with one argmax."""
    if truth.shape != other.shape:
        raise ValueError(f"logits of shape {tuple(other.shape)}, expected {tuple(truth.shape)}")
    cosines, divergences, hits = [], [], []
    for p, q in zip(truth.split(CHUNK_ROWS), other.split(CHUNK_ROWS)):
        p, q = p.double(), q.to(p.device).double()
        cosines.append(torch.cosine_similarity(p, q, dim=-1))
        log_p, log_q = p.log_softmax(-1), q.log_softmax(-1)
        divergences.append((log_p.exp() * (log_p - log_q)).sum(-1))
        hits.append(p.argmax(-1) == q.argmax(-1))
    cosine, kl, hit = torch.cat(cosines), torch.cat(divergences), torch.cat(hits)
    return {"cosine_mean": cosine.mean().item(), "cosine_min": cosine.min().item(),
            "kl_mean": kl.mean().item(), "kl_max": kl.max().item(),
            "top1": hit.double().mean().item()}


def check_comparison() -> None:
    """Values worked out by hand: a comparison that accepts everything would hide every fault."""
    log = torch.tensor([1.0, 2.0, 3.0]).log()
    truth = torch.stack([torch.tensor([3.0, 4.0, 0.0])] * 300 + [log[[1, 1, 1]]])
    other = torch.stack([torch.tensor([3.0, 4.0, 0.0])] * 300 + [log[[0, 1, 2]]])
    found = compare(truth, other)
    # The last row: uniform against 1/6, 2/6, 3/6.
    kl = (torch.tensor([2.0, 1.0, 2 / 3]).log().sum() / 3).item()
    cosine = torch.cosine_similarity(truth[300], other[300], dim=0).item()
    expected = {"cosine_mean": (300 + cosine) / 301, "cosine_min": cosine, "kl_mean": kl / 301,
                "kl_max": kl, "top1": 300 / 301}
    for key, value in expected.items():
        if not abs(found[key] - value) < 1e-6:
            raise AssertionError(f"{key} is {found[key]}, expected {value}")
    if compare(truth, truth * float("nan"))["cosine_min"] >= 0:
        raise AssertionError("NaN passes for a cosine")
