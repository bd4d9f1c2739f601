"""Ring attention (Liu et al. 2023, arXiv 2310.01889): a long text, split over several workers.

    python -m torch.distributed.run --standalone --nproc-per-node 4 classroom/ring.py

Worker r of R holds part r of the queries, keys and values. The queries stay. The keys and values
go round: R - 1 times each worker hands the part it has to the next one, and takes in what it gets
with the running softmax of flash.py. No worker ever holds all keys. Here the workers are processes
of one machine that talk through gloo; causal, and the forward pass only.
"""

import os
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from flash import absorb, finish, nothing


def ring_attention(q, k, v, rank, world):
    """Causal attention over the parts of all workers: q (B, H, T / R, D), k and v
    (B, Hkv, T / R, D) are this worker's own -> (B, H, T / R, D), and the bytes that it sent.

    A collective call: each of the `world` = R workers makes it, with its own part. Parts may
    differ in length, worker 0 has the first. Raises ValueError for an empty part.
    """
    lengths = [torch.zeros((), dtype=torch.long) for _ in range(world)]
    dist.all_gather(lengths, torch.tensor(k.shape[2]))
    if min(lengths) == 0:  # all workers see the same lengths, so all of them stop
        raise ValueError(f"{sum(lengths)} tokens for {world} workers: each needs at least one")
    q, kv, sent = q.unflatten(1, (k.shape[1], -1)), torch.stack((k, v)), 0  # (2, B, Hkv, T / R, D)
    see = torch.ones(q.shape[3], q.shape[3], dtype=torch.bool).tril()  # (T / R, T / R)
    state = nothing(q)
    for step in range(world):
        source = (rank - step) % world  # whose keys and values are here now
        if step + 1 < world:  # hand them on, and compute while they travel
            coming = kv.new_empty(*kv.shape[:3], int(lengths[source - 1]), kv.shape[4])
            moves = [dist.isend(kv, (rank + 1) % world), dist.irecv(coming, (rank - 1) % world)]
            sent += kv.nbytes
        if source <= rank:  # what comes from a later worker is in the future
            state = absorb(state, q, *kv, see if source == rank else None)
        if step + 1 < world:
            for move in moves:
                move.wait()
            kv = coming  # (2, B, Hkv, T / R, D)
    return finish(state)[0].flatten(1, 2), sent


def worker(rank, world, folder, q, k, v):
    """One process of `spawned`: writes its part of the output and the bytes that it sent."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=world)
    part = [x.tensor_split(world, 2)[rank].contiguous() for x in (q, k, v)]
    torch.save(ring_attention(*part, rank, world), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def spawned(q, k, v, world):
    """Ring attention of whole q, k and v on `world` new processes, at most T: (B, H, T, D), and
    the bytes that each sent."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(worker, (world, folder, q, k, v), nprocs=world)
        files = [Path(folder) / f"{rank}.pt" for rank in range(world)]
        found = [torch.load(file, weights_only=True) for file in files]
    outs, sent = zip(*found)
    return torch.cat(outs, 2), list(sent)


def main(T=1024, H=4, Hkv=2, D=32):
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    gen = torch.Generator().manual_seed(0)  # the same numbers in every worker, for the comparison
    whole = [torch.randn(1, heads, T, D, generator=gen) for heads in (H, Hkv, Hkv)]
    part = [x.tensor_split(world, 2)[rank].contiguous() for x in whole]
    out, sent = ring_attention(*part, rank, world)  # (1, H, T / R, D)
    full = F.scaled_dot_product_attention(*whole, is_causal=True, enable_gqa=True)  # (1, H, T, D)
    difference = (out - full.tensor_split(world, 2)[rank]).abs().max()
    sent = torch.tensor(sent)
    dist.all_reduce(difference, dist.ReduceOp.MAX)
    dist.all_reduce(sent)
    if rank == 0:
        n = part[0].shape[2]
        print(
            f"R={world}: {n} of {T} tokens each, differs from full attention by "
            f"{difference:.1e} at most, {sent:,} bytes travelled, "
            f"largest tile of scores {H * n * n * 4:,} bytes",
            flush=True,
        )
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
