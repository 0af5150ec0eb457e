from __future__ import annotations

import csv
from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor, nn

from facekit.errors import ConfigError, WeightsError
from facekit.fitting import Average, FitConfig, _read, _restore, fit


class Line(nn.Module):
    """y = w x + b, in the shape of a network with a batch norm."""

    def __init__(self, hidden: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(1, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(0.1), nn.Linear(hidden, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Regression:
    name = "line"
    every = 1

    def batches(self) -> int:
        return 20

    def start_epoch(self, cycle: int, done: float, generator: Generator) -> None:
        self.x = torch.rand(20, 16, 1, generator=generator)

    def loss(self, network: nn.Module, step: int, generator: Generator) -> Tensor:
        x = self.x[step] + 0.01 * torch.randn(16, 1, generator=generator)
        return (network(x).float() - 3 * x - 1).square().mean()

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> dict[str, float]:
        x = torch.linspace(0, 1, 50)[:, None]
        return {"error": float((network(x).float() - 3 * x - 1).abs().mean())}


def line() -> Line:
    torch.manual_seed(1)
    return Line()


CONFIG = FitConfig(epochs=4, optimizer="adamw", learning_rate=0.05, weight_decay=0.0, average=0.9)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_training_lowers_the_error(tmp_path, optimizer):
    records = list(
        fit(line(), [Regression()], FitConfig(epochs=12, optimizer=optimizer, learning_rate=0.05), tmp_path)
    )
    assert [record.epoch for record in records] == list(range(1, 13))
    assert records[-1].figures["error"] < 0.5 * records[0].figures["error"]
    rows = list(csv.DictReader((tmp_path / "history.csv").read_text().splitlines()))
    assert [float(row["error"]) for row in rows] == pytest.approx(
        [r.figures["error"] for r in records], abs=1e-4
    )


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_resumed_run_ends_as_an_unbroken_one(tmp_path, optimizer):
    config = FitConfig(epochs=4, optimizer=optimizer, learning_rate=0.05, average=0.9)
    whole, broken = line(), line()
    list(fit(whole, [Regression()], config, tmp_path / "whole"))

    first_half = fit(broken, [Regression()], config, tmp_path / "broken")
    assert [next(first_half).epoch, next(first_half).epoch] == [1, 2]
    first_half.close()
    torch.manual_seed(99)
    resumed = Line()
    epochs = [r.epoch for r in fit(resumed, [Regression()], config, tmp_path / "broken", resume=True)]

    assert epochs == [3, 4]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert (tmp_path / "whole/history.csv").read_text().count("\n") == 5
    assert (tmp_path / "broken/history.csv").read_text().count("\n") == 5


def test_a_finished_run_goes_on_into_a_second_cycle_as_an_unbroken_one(tmp_path):
    both = replace(CONFIG, epochs=8, cycles=2)
    whole, continued = line(), line()
    list(fit(whole, [Regression()], both, tmp_path / "whole"))
    list(fit(continued, [Regression()], CONFIG, tmp_path / "continued"))
    list(fit(continued, [Regression()], both, tmp_path / "continued", resume=True))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, continued.state_dict()[name]), name


def test_the_ends_of_cycles_are_averaged(tmp_path):
    both = replace(CONFIG, epochs=8, cycles=2)
    first, second, mean, continued = (line() for _ in range(4))
    list(fit(first, [Regression()], CONFIG, tmp_path / "first"))
    list(fit(second, [Regression()], both, tmp_path / "second"))
    list(fit(mean, [Regression()], replace(both, ends=2), tmp_path / "mean"))
    list(fit(continued, [Regression()], CONFIG, tmp_path / "first", resume=True))
    steps = fit(continued, [Regression()], replace(both, ends=2), tmp_path / "first", resume=True)
    assert [next(steps).epoch, next(steps).epoch] == [5, 6]
    steps.close()
    list(fit(continued, [Regression()], replace(both, ends=2), tmp_path / "first", resume=True))
    ends = [network.state_dict() for network in (first, second)]
    assert not torch.equal(ends[0]["layers.0.weight"], ends[1]["layers.0.weight"])
    for name in ("layers.0.weight", "layers.1.running_mean"):
        torch.testing.assert_close(mean.state_dict()[name], (ends[0][name] + ends[1][name]) / 2)
        assert torch.equal(mean.state_dict()[name], continued.state_dict()[name])


def test_without_resume_a_run_starts_anew(tmp_path):
    list(fit(line(), [Regression()], CONFIG, tmp_path))
    again = [record.epoch for record in fit(line(), [Regression()], CONFIG, tmp_path)]
    assert again == [1, 2, 3, 4]


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    list(fit(line(), [Regression()], CONFIG, tmp_path))
    with pytest.raises(WeightsError, match="another network"):
        next(fit(Line(hidden=7), [Regression()], CONFIG, tmp_path, resume=True))


def test_checkpoints_are_not_pickles(tmp_path):
    list(fit(line(), [Regression()], CONFIG, tmp_path))
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".csv", ".png"}


def test_an_unknown_optimizer_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="sgd or adamw"):
        next(fit(line(), [Regression()], FitConfig(optimizer="adam"), tmp_path))


def test_the_average_follows_slowly_and_starts_fast():
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    average = Average(network, 0.99)
    nn.init.ones_(network.weight)
    average.update()
    assert average.state["weight"].item() == pytest.approx(1 - 2 / 11)
    for _ in range(2000):
        average.update()
    assert average.state["weight"].item() == pytest.approx(1.0, abs=1e-3)


def test_a_new_run_that_breaks_at_once_does_not_resume_an_old_one(tmp_path):
    list(fit(line(), [Regression()], CONFIG, tmp_path))

    class Broken(Regression):
        def loss(self, network: nn.Module, step: int, generator: Generator) -> Tensor:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(fit(line(), [Broken()], CONFIG, tmp_path))
    assert [record.epoch for record in fit(line(), [Regression()], CONFIG, tmp_path, resume=True)] == [
        1,
        2,
        3,
        4,
    ]


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
def test_ends_of_cycles_come_back_to_the_networks_device(tmp_path):
    list(fit(line(), [Regression()], replace(CONFIG, cycles=2, ends=2), tmp_path))
    there = line().to("meta")
    average = Average(there, 0.9)
    stored = _read(tmp_path / "checkpoint.safetensors")
    assert stored is not None
    _restore(tmp_path, stored, there, average, torch.optim.AdamW(there.parameters()))
    assert len(average.ends) == 1
    assert {tensor.device.type for tensor in average.over_cycles(2).values()} == {"meta"}
