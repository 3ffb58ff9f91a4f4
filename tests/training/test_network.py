"""The network in training: frozen stages, running averages, checkpoints, memory."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from ssd_triton.common.machine import available_memory_bytes
from ssd_triton.detector.network.ssd import SSD300
from ssd_triton.training import initial_network as start
from ssd_triton.training import out_of_memory
from ssd_triton.training.cuda_graph import graphed
from ssd_triton.training.errors import TrainingError
from ssd_triton.training.fp16_range import LARGEST_FP16, rescale_for_fp16
from ssd_triton.training.freezing import freeze_norms, freeze_stages
from ssd_triton.training.history import Record
from ssd_triton.training.optimization import RunningAverage, make_schedule
from ssd_triton.training.snapshot import TrainingState, restore_snapshot, save_snapshot
from ssd_triton.training.trainer import SNAPSHOT
from tests.training.helpers import LABELS

CPU = torch.device("cpu")


def test_half_safe_weights_are_the_same_function() -> None:
    torch.manual_seed(0)
    network = SSD300("resnet18", 3).eval()
    stem = network.feature_extractor.feature_extractor
    with torch.no_grad():
        stem[0].weight.mul_(500)
        stem[1].running_mean.uniform_(-300, 300)
        stem[1].running_var.uniform_(1, 120_000)
        stem[1].running_var[0] = 1e-9  # a dead channel stays as it is
    image = torch.rand(1, 3, 300, 300)
    with torch.inference_mode():
        before = network(image)
        assert stem[1].running_var.max() > LARGEST_FP16
        assert rescale_for_fp16(network) > 0
        after = network(image)
    assert all(torch.isfinite(value.half()).all() for value in network.state_dict().values())
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(other, one, atol=1e-3, rtol=1e-3)
    assert rescale_for_fp16(network) == 0


def test_frozen_stages_compute_the_same_and_do_not_train() -> None:
    torch.manual_seed(0)
    network = SSD300("resnet18", 3).eval()
    image = torch.rand(1, 3, 300, 300)
    with torch.inference_mode():
        expected = network(image)
    trained = freeze_stages(network, 2, torch.float32, dropout=0.0).eval()
    loc, conf = trained(image)
    torch.testing.assert_close(loc, expected[0], atol=1e-4, rtol=1e-4)
    (loc.sum() + conf.sum()).backward()
    layers = network.feature_extractor.feature_extractor
    assert all(one.grad is None and not one.requires_grad for one in layers[:5].parameters())
    assert all(one.grad is not None for one in layers[5].parameters())


def test_frozen_norms_compute_the_same_and_train_the_same() -> None:
    """Against batch norms in evaluation mode: outputs and gradients; the network itself keeps its norms."""
    torch.manual_seed(0)
    network = SSD300("resnet18", 3).eval()
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.running_mean.normal_(std=0.1)
            norm.running_var.uniform_(0.5, 2)
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(std=0.1)
    image = torch.rand(1, 3, 300, 300)
    answers, gradients = [], []
    for one in (network, freeze_norms(network).train()):
        loc, conf = one(image)
        (loc.square().mean() + conf.square().mean()).backward()
        answers.append((loc.detach(), conf.detach()))
        gradients.append({name: parameter.grad.clone() for name, parameter in network.named_parameters()})
        network.zero_grad()
    torch.testing.assert_close(answers[1], answers[0], atol=1e-4, rtol=1e-4)
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-3)
    assert [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)] == norms
    assert int(norms[0].num_batches_tracked) == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU to record a graph")
@pytest.mark.parametrize("frozen_norms", [True, False])
def test_a_graph_computes_and_trains_the_same(*, frozen_norms: bool) -> None:
    device = torch.device("cuda")
    network = SSD300("resnet18", 3).to(device, memory_format=torch.channels_last).train()
    trained = freeze_norms(network) if frozen_norms else network
    buffers, random_state = [one.clone() for one in network.buffers()], torch.cuda.get_rng_state()
    recorded = graphed(trained, 4, torch.bfloat16, device)
    assert all(torch.equal(*pair) for pair in zip(buffers, network.buffers(), strict=True))
    assert torch.equal(random_state, torch.cuda.get_rng_state())
    images = torch.rand(4, 3, 300, 300, device=device).contiguous(memory_format=torch.channels_last)
    answers, gradients = [], []
    for one in (trained, recorded, recorded):
        network.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16):
            loc, conf = one(images)
        (loc.float().square().mean() + conf.float().square().mean()).backward()
        answers.append((loc.detach().clone(), conf.detach().clone()))
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    for again in (1, 2):
        torch.testing.assert_close(answers[again], answers[0], atol=1e-3, rtol=1e-2)
        torch.testing.assert_close(gradients[again], gradients[0], atol=1e-3, rtol=1e-2)


def test_running_average_by_hand() -> None:
    network = SSD300("resnet18", 2)
    average = RunningAverage(network, decay=0.5, warmup=True)
    bias, averaged = network.conf[0].bias, average.network.conf[0].bias
    start_value = bias[0].item()
    with torch.no_grad():
        bias.add_(1.0)
    average.update(0)  # the decay is (1 + 0) / (10 + 0)
    assert averaged[0].item() == pytest.approx(start_value + 0.9)
    average.update(1000)
    assert averaged[0].item() == pytest.approx(start_value + 0.95)
    kept = RunningAverage(network, decay=0.9, warmup=False)
    with torch.no_grad():
        bias.add_(1.0)
    kept.update(0)
    assert kept.network.conf[0].bias[0].item() == pytest.approx(start_value + 1.1)


def test_checkpoints_of_other_classes_need_new_heads(tmp_path: Path) -> None:
    trained, path = SSD300("resnet18", 5), tmp_path / "five.safetensors"
    safetensors.torch.save_file(dict(trained.state_dict()), path)
    network = start.new_network("resnet18", 3, seed=0)
    with pytest.raises(TrainingError, match=r"got 5 classes with the background, expected 3.*--new-heads"):
        start.load_checkpoint(network, path, new_heads=False)
    own_head = network.conf[0].weight.detach().clone()
    start.load_checkpoint(network, path, new_heads=True)
    assert torch.equal(network.conf[0].weight, own_head)
    assert torch.equal(network.loc[0].weight, trained.loc[0].weight)


def test_backbone_archives(tmp_path: Path) -> None:
    donor, network = SSD300("resnet18", 2), start.new_network("resnet18", 2, seed=1)
    place = {str(number): name for name, number in start.STAGE_OF.items()}
    arrays = {}
    for name, value in donor.feature_extractor.feature_extractor.state_dict().items():
        module, _, rest = name.partition(".")
        arrays[f"{place[module]}.{rest}"] = value.numpy()
    path = tmp_path / "backbone.npz"
    np.savez(path, **arrays, **{"layer4.0.conv1.weight": np.zeros(3)})
    start.load_backbone(network, path)
    assert torch.equal(
        network.feature_extractor.feature_extractor[6][0].conv1.weight,
        donor.feature_extractor.feature_extractor[6][0].conv1.weight,
    )
    np.savez(path, **{key: value for key, value in arrays.items() if key != "conv1.weight"})
    with pytest.raises(TrainingError, match="1 parameters missing"):
        start.load_backbone(network, path)
    path.write_bytes(b"PK no archive")
    with pytest.raises(TrainingError, match=r"no readable \.npz"):
        start.load_backbone(network, path)


def test_the_batch_that_fits_memory() -> None:
    # 1 GiB that every batch takes, and 0.5 GiB an image.
    used = {size: int((1 + 0.5 * size) * 2**30) for size in (2, 4, 8)}
    assert out_of_memory.largest_batch(used, 20 * 2**30) == 36
    error = out_of_memory.refusal(64, used, 20 * 2**30, "a GPU")
    assert "batch of 64" in str(error)
    assert "--batch 36" in str(error)
    assert "not even 2 images" in str(out_of_memory.refusal(64, used, 2**29, "a GPU"))
    assert "not even a few" in str(out_of_memory.refusal(64, {}, 2**29, "a GPU"))


def test_more_images_than_memory_holds_are_refused_before_they_are_read() -> None:
    # COCO's train2017: 118,287 * 3 * 352² bytes, twice.
    with pytest.raises(TrainingError, match=r"118,287 images of 352 px take 81\.9 GiB of memory, 16\.0 GiB are free"):
        out_of_memory.check_images_fit(118_287, 352, 16 * 2**30, "train2017.json")
    out_of_memory.check_images_fit(118_287, 352, 82 * 2**30, "train2017.json")
    assert 2**20 < available_memory_bytes() < 2**50


def test_a_full_disk_is_one_line_and_leaves_the_snapshot_before(tmp_path: Path) -> None:
    """A limit on the size of files fails as a full disk does, in the middle of writing."""
    network = SSD300("resnet18", len(LABELS))
    optimizer, generator = torch.optim.AdamW(network.parameters()), torch.Generator()
    state = TrainingState(network, network, optimizer, make_schedule(optimizer, 9, 0), generator, CPU)
    path = tmp_path / SNAPSHOT
    save_snapshot(path, state, Record(step=7), {})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
    try:
        with pytest.raises(TrainingError, match=r"cannot write to .*make room"):
            save_snapshot(path, state, Record(step=8), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert restore_snapshot(path, state, {}).step == 7
    assert [each.name for each in tmp_path.iterdir()] == [SNAPSHOT]
