# Licensed under the Apache License, Version 2.0 (see LICENSE).
"""The options of `effsam distill`: teacher and student, pictures, cache, stages."""

from __future__ import annotations

import argparse
from pathlib import Path

from monai_effsam.cli.common import add_options
from monai_effsam.cli.inheriting import add_inherit_network
from monai_effsam.cli.labelled import add_label_options

__all__ = ["add_distill_options"]


def add_distill_options(parser: argparse.ArgumentParser) -> None:
    """All options of the command."""
    parser.add_argument(
        "--teacher", required=True, metavar="PATH", help="checkpoint, model, run or bundle; or 'random'"
    )
    parser.add_argument(
        "--teacher-family", metavar="NAME", help="sam, medsam, ...; MedSAM cannot be told from SAM"
    )
    parser.add_argument(
        "--student",
        default="light",
        metavar="NAME",
        help="light (default), kd_sam_resnet50, kd_sam_resnet50_n6, kd_sam_resnetv2_50, tiny_vit, any timm network, or "
        "a recipe.json with 'encoder' and 'spec', or the architecture.json of a search",
    )
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--trunk", type=Path, metavar="FILE", help="weights of its timm trunk, .safetensors")
    start.add_argument(
        "--inherit",
        nargs="?",
        const=True,
        default=False,
        metavar="FILE",
        help="its encoder, the teacher's at another size, starts as the teacher's; with FILE, a searched one starts "
        "from these weights of a pretrained network, .safetensors",
    )
    add_inherit_network(parser)
    parser.add_argument("--size", type=int, metavar="PX", help="side of its input (default: the student's)")
    parser.add_argument("--images", required=True, type=Path, metavar="PATH", dest="data", help="see above")
    add_label_options(parser)
    add_options(parser, "out", "device", "seed", "overwrite", required=("out",))
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run in --out")
    _add_cache_options(parser)
    _add_training_options(parser)
    _add_term_options(parser)


def _add_cache_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="keep the teacher's answers here (default: nowhere)"
    )
    parser.add_argument(
        "--cache-form",
        choices=("half", "compact"),
        default="half",
        help="16-bit floats (2 MiB a view of SAM), or 8-bit integers, half of that (default: half)",
    )
    parser.add_argument("--cache-limit", type=float, metavar="GB", help="that it may grow to (default: 69)")
    parser.add_argument(
        "--fill", action="store_true", help="fill the cache, then stop; also in several processes"
    )


def _add_training_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--stages",
        metavar="A,B",
        help="of encoder, decoder, joint (default: encoder, with labels also decoder; joint alone is end to end)",
    )
    parser.add_argument(
        "--perceptual",
        metavar="KIND",
        help="none, pyramid (default: of the teacher's decoder), projected or masked (both with --vgg)",
    )
    parser.add_argument("--vgg", type=Path, metavar="FILE", help="weights of torchvision's VGG-16 or VGG-19")
    parser.add_argument(
        "--perceptual-weight", type=float, metavar="X", help="its weight (default: set by the first batch)"
    )
    parser.add_argument(
        "--decoder-first", action="store_true", help="tune the decoder on the teacher's embeddings"
    )
    parser.add_argument("--views", type=int, metavar="N", help="views of each picture (default: 4)")
    parser.add_argument(
        "--epochs", metavar="N[,N]", help="of each stage, or of one after the other (default: 30, 10, 10)"
    )
    parser.add_argument("--batch", type=int, metavar="N", help="views a batch (default: 8)")
    parser.add_argument(
        "--timing", type=int, metavar="N", help="first measure N steps with and without the cache"
    )
    parser.add_argument(
        "--teacher-batch", type=int, default=4, metavar="N", help="the teacher's (default: 4)"
    )


def _add_term_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "what the encoder learns", "each term is weighted and told by itself; all need a promptable teacher"
    )
    group.add_argument(
        "--embedding-weight", type=float, default=1.0, metavar="X", help="of the embedding's MSE (default: 1)"
    )
    group.add_argument(
        "--logits",
        type=float,
        default=0.0,
        metavar="X",
        help="weight of the mask logits' divergence (default: 0)",
    )
    group.add_argument(
        "--temperature", type=float, default=1.0, metavar="T", help="of the logits (default: 1)"
    )
    group.add_argument(
        "--saliency",
        default="none",
        metavar="KIND",
        help="none (default), activation, grad_cam, input_gradient, rollout (of SAM's ViT) or token",
    )
    group.add_argument(
        "--saliency-weight", type=float, default=0.25, metavar="X", help="of it (default: 0.25)"
    )
    group.add_argument(
        "--ablation",
        action="store_true",
        help="distil with all these terms, and without each of them, into folders of --out; a table compares them",
    )
