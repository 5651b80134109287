"""The objectives against numbers computed by hand, gradients included."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from spotcli.core.loss import OBJECTIVES, Coefficients, LossInputs, LossOutputs, kept_kl
from spotcli.core.reward_shift import RewardShift
from spotcli.errors import SpotError

# Two pairs, beta 0.5:
#            policy   reference   difference     r
#   y+ 1       -8        -10          2         1.0
#   y+ 2      -10        -10          0         0.0
#   y- 1      -14        -12         -2        -1.0
#   y- 2       -9        -10          1         0.5
#   E 1        -6         -5         -1        -0.5      E: the errors of y- alone
#   E 2        -3         -4          1         0.5
BETA = 0.5

# s(0.25) = 0.562177  s(0.5) = 0.622459  s(0.75) = 0.679179  s(1) = 0.731059  s(1.25) = 0.777300  s(2) = 0.880797


def inputs() -> LossInputs:
    return LossInputs(
        policy_chosen_logps_B=torch.tensor([-8.0, -10.0], requires_grad=True),
        policy_rejected_logps_B=torch.tensor([-14.0, -9.0], requires_grad=True),
        reference_chosen_logps_B=torch.tensor([-10.0, -10.0]),
        reference_rejected_logps_B=torch.tensor([-12.0, -10.0]),
        policy_error_logps_B=torch.tensor([-6.0, -3.0], requires_grad=True),
        reference_error_logps_B=torch.tensor([-5.0, -4.0]),
        error_B=torch.ones(2),
    )


def gradients(given: LossInputs, out: LossOutputs) -> tuple[list[float], list[float]]:
    assert given.policy_rejected_logps_B is not None
    chosen_B, rejected_B = torch.autograd.grad(
        out.loss, (given.policy_chosen_logps_B, given.policy_rejected_logps_B), allow_unused=True
    )
    return chosen_B.tolist(), ([0.0, 0.0] if rejected_B is None else rejected_B.tolist())


def about(*values: float) -> object:
    return pytest.approx(list(values), abs=2e-6)


def test_spot_bco() -> None:
    # d = 0.25. Pair 1: -log s(0.75) - log s(1.25) = 0.386871 + 0.251929 = 0.638800
    #           Pair 2: -log s(-0.25) - log s(-0.25) = 2 * 0.825939 = 1.651879      mean 1.145339
    given = inputs()
    out = OBJECTIVES["spot-bco"](given, Coefficients(BETA, 0.25))
    assert out.loss.item() == pytest.approx(1.145339, abs=2e-6)
    # lambda = 1 - s(r+ - d): 1 - 0.679179 = 0.320821 and 1 - s(-0.25) = 0.562177
    assert out.metrics["tether"].tolist() == about(0.320821, 0.562177)
    # y+ is pushed up: -beta * lambda / 2 pairs.
    # y- is pushed down: +beta * s(r- - d) / 2, with s(-1.25) = 0.222700 and s(0.25) = 0.562177.
    chosen, rejected = gradients(given, out)
    assert chosen == about(-0.080205, -0.140544)
    assert rejected == about(0.055675, 0.140544)


def test_spot_bce_has_no_shift() -> None:
    # Pair 1: -log s(1) - log s(1) = 2 * 0.313262 = 0.626523
    # Pair 2: -log s(0) - log s(-0.5) = 0.693147 + 0.974077 = 1.667224                mean 1.146874
    given = inputs()
    out = OBJECTIVES["spot-bce"](given, Coefficients(BETA, 7.0))
    assert out.loss.item() == pytest.approx(1.146874, abs=2e-6)
    # lambda: 1 - s(1) = 0.268941, 1 - s(0) = 0.5; on y-: s(-1) = 0.268941, s(0.5) = 0.622459
    assert out.metrics["tether"].tolist() == about(0.268941, 0.5)
    chosen, rejected = gradients(given, out)
    assert chosen == about(-0.067235, -0.125)
    assert rejected == about(0.067235, 0.155615)


def error_gradients(given: LossInputs, out: LossOutputs) -> list[float]:
    assert given.policy_error_logps_B is not None
    (error_B,) = torch.autograd.grad(out.loss, given.policy_error_logps_B, retain_graph=True)
    return error_B.tolist()


def test_spot_focal_lowers_the_errors_of_the_rejected_answer() -> None:
    # d = 0.25, w = 2. Pair 1: -log s(0.75) - 2 log s(0.75) = 0.386871 + 2 * 0.386871 = 1.160613
    #                  Pair 2: -log s(-0.25) - 2 log s(-0.25) = 3 * 0.825939 = 2.477818      mean 1.819216
    given, coefficients = inputs(), Coefficients(BETA, 0.25, focal_weight=2.0)
    out = OBJECTIVES["spot-focal"](given, coefficients)
    assert out.loss.item() == pytest.approx(1.819216, abs=2e-6)
    # E: beta * w * s(r-_E - d) / 2, with s(-0.75) = 0.320821 and s(0.25) = 0.562177; other tokens of y-: nothing.
    assert error_gradients(given, out) == about(0.160411, 0.281089)
    chosen, rejected = gradients(given, out)
    assert chosen == about(-0.080205, -0.140544)  # as in spot-bco
    assert rejected == [0.0, 0.0]
    # The metrics have the rewards of the whole y- and of its errors.
    assert out.metrics["rewards_rejected"].tolist() == about(-1.0, 0.5)
    assert out.metrics["rewards_error"].tolist() == about(-0.5, 0.5)
    # Without an error in pair 2, its second term falls away: (1.160613 + 0.825939) / 2.
    given = replace(given, error_B=torch.tensor([1.0, 0.0]))
    out = OBJECTIVES["spot-focal"](given, coefficients)
    assert out.loss.item() == pytest.approx(0.993276, abs=2e-6)
    assert error_gradients(given, out) == about(0.160411, 0.0)


def test_dpop_penalises_a_chosen_answer_that_becomes_less_likely() -> None:
    # lambda = 2. Pair 1: margin 2, no penalty: 0.126928
    #             Pair 2: y+ at -11, so r+ = -0.5: -log s(-0.5 - 0.5 - 2 * 0.5) = -log s(-2) = 2.126928    mean 1.126928
    given = replace(inputs(), policy_chosen_logps_B=torch.tensor([-8.0, -11.0], requires_grad=True))
    out = OBJECTIVES["dpop"](given, Coefficients(BETA, dpop_penalty=2.0))
    assert out.loss.item() == pytest.approx(1.126928, abs=2e-6)
    # 1 - s(2) = 0.119203, 1 - s(-2) = 0.880797; on y+ of pair 2 times 1 + lambda = 3.
    chosen, rejected = gradients(given, out)
    assert chosen == about(-0.029801, -0.660598)
    assert rejected == about(0.029801, 0.220199)
    # Without a fall of y+, it is dpo.
    assert OBJECTIVES["dpop"](inputs(), Coefficients(BETA)).loss.item() == pytest.approx(0.550503, abs=2e-6)


def test_nca_bounds_the_reward_of_the_chosen_answer() -> None:
    # Pair 1: -log s(1) - 0.5 log s(-1) - 0.5 log s(1) = 0.313262 + 0.656631 + 0.156631 = 1.126524
    # Pair 2: -log s(0) - 0.5 log s(0) - 0.5 log s(-0.5) = 0.693147 + 0.346574 + 0.487038 = 1.526759     mean 1.326642
    given = inputs()
    out = OBJECTIVES["nca"](given, Coefficients(BETA))
    assert out.loss.item() == pytest.approx(1.326642, abs=2e-6)
    # y+: beta * (1.5 s(r+) - 1) / 2, with s(1) = 0.731059 and s(0) = 0.5: above r+ = ln 2 it is pushed down.
    # y-: beta * 0.5 * s(r-) / 2, with s(-1) = 0.268941 and s(0.5) = 0.622459.
    chosen, rejected = gradients(given, out)
    assert chosen == about(0.024147, -0.0625)
    assert rejected == about(0.033618, 0.077807)
    assert out.metrics["tether"].tolist() == about(-0.096589, 0.25)


def test_dpo() -> None:
    # margins 2 and -0.5: 0.126928 and 0.974077                                        mean 0.550503
    given = inputs()
    out = OBJECTIVES["dpo"](given, Coefficients(BETA))
    assert out.loss.item() == pytest.approx(0.550503, abs=2e-6)
    assert out.metrics["margin"].tolist() == about(2.0, -0.5)
    assert out.metrics["accuracy"].tolist() == [1.0, 0.0]
    # Both answers of a pair have the same weight, 1 - s(margin): 0.119203 and 0.622459
    assert out.metrics["tether"].tolist() == about(0.119203, 0.622459)
    chosen, rejected = gradients(given, out)
    assert chosen == about(-0.029801, -0.155615)
    assert rejected == about(0.029801, 0.155615)


def test_reward_sft_has_no_gradient_on_the_rejected_answer() -> None:
    # 0.313262 and 0.693147                                                            mean 0.503204
    given = inputs()
    out = OBJECTIVES["reward-sft"](given, Coefficients(BETA))
    assert out.loss.item() == pytest.approx(0.503204, abs=2e-6)
    chosen, rejected = gradients(given, out)
    assert chosen == about(-0.067235, -0.125)
    assert rejected == [0.0, 0.0]
    assert out.metrics["rewards_rejected"].tolist() == about(-1.0, 0.5)


def tokens(*probabilities: float) -> Tensor:
    return torch.tensor(probabilities).log().requires_grad_()


def test_sft_is_the_mean_over_tokens() -> None:
    # -log 0.5 = 0.693147, -log 0.25 = 1.386294, -log 0.8 = 0.223144                    mean 0.767528
    logps_T = tokens(0.5, 0.25, 0.8)
    out = OBJECTIVES["sft"](LossInputs(logps_T.sum()[None], chosen_token_logps_T=logps_T))
    assert out.loss.item() == pytest.approx(0.767528, abs=2e-6)
    assert torch.autograd.grad(out.loss, logps_T)[0].tolist() == about(-1 / 3, -1 / 3, -1 / 3)


def test_dft_weights_each_token_by_its_own_probability() -> None:
    # 0.5 * 0.693147 + 0.25 * 1.386294 + 0.8 * 0.223144 = 0.346574 + 0.346574 + 0.178515      mean 0.290554
    logps_T = tokens(0.5, 0.25, 0.8)
    out = OBJECTIVES["dft"](LossInputs(logps_T.sum()[None], chosen_token_logps_T=logps_T))
    assert out.loss.item() == pytest.approx(0.290554, abs=2e-6)
    # The weight is a constant: d/d logp = -p / 3.
    assert torch.autograd.grad(out.loss, logps_T)[0].tolist() == about(-0.5 / 3, -0.25 / 3, -0.8 / 3)


# Row 1 is the first pair above, row 2 the second y+ alone: a right answer to keep, r = 0.
@pytest.mark.parametrize(
    ("name", "loss", "chosen_gradients", "rejected_gradient"),
    [
        # d = 0.25. Row 1: -log s(0.75) - log s(1.25) = 0.386871 + 0.251929. Row 2: -log s(-0.25) = 0.825939.
        # Mean over 2 rows. Gradients: -beta * (1 - s(r+ - d)) / 2 with 0.320821 and 0.562177, and for y-
        # beta * s(r- - d) / 2 with s(-1.25) = 0.222700.
        ("spot-bco", 0.732370, (-0.080205, -0.140544), 0.055675),
        # Row 1: -log s(1) - log s(1) = 0.626523. Row 2: -log s(0) = 0.693147. 1 - s: 0.268941 and 0.5.
        ("spot-bce", 0.659835, (-0.067235, -0.125), 0.067235),
        # Row 1: -log s(1) = 0.313262. Row 2: 0.693147.
        ("reward-sft", 0.503204, (-0.067235, -0.125), 0.0),
        # Row 1: -log s(0.75) - log s(0.75) = 2 * 0.386871. Row 2: 0.825939, as in spot-bco.
        ("spot-focal", 0.799841, (-0.080205, -0.140544), 0.0),
        # Row 1: 1.126524. Row 2: -log s(0) - 0.5 log s(0) = 1.039721. Gradients as in the test of nca.
        ("nca", 1.083122, (0.024147, -0.0625), 0.033618),
    ],
)
def test_without_a_rejected_answer_only_the_term_of_the_chosen_one_is_left(
    name: str, loss: float, chosen_gradients: tuple[float, float], rejected_gradient: float
) -> None:
    given = replace(
        inputs(),
        # A packed row without y- has log-probabilities of 0.
        policy_rejected_logps_B=torch.tensor([-14.0, 0.0], requires_grad=True),
        reference_rejected_logps_B=torch.tensor([-12.0, 0.0]),
        policy_error_logps_B=torch.tensor([-6.0, 0.0]),
        reference_error_logps_B=torch.tensor([-5.0, 0.0]),
        error_B=torch.tensor([1.0, 0.0]),
        paired_B=torch.tensor([1.0, 0.0]),
    )
    out = OBJECTIVES[name](given, Coefficients(BETA, 0.25))
    assert out.loss.item() == pytest.approx(loss, abs=2e-6)
    chosen, rejected = gradients(given, out)
    assert chosen == about(*chosen_gradients)
    assert rejected == about(rejected_gradient, 0.0)
    # The metrics of pairs are those of row 1, and row 2 has its own.
    assert out.metrics["rewards_chosen"].tolist() == about(1.0, 0.0)
    assert out.metrics["rewards_rejected"].tolist() == about(-1.0, 0.0)
    assert out.metrics["margin"].tolist() == about(2.0, 0.0)
    assert out.metrics["accuracy"].tolist() == [1.0, 0.0]
    assert out.metrics["tether"][1].item() == 0.0
    assert out.metrics["rewards_kept"].tolist() == about(0.0, 0.0)
    moved = replace(given, policy_chosen_logps_B=torch.tensor([-8.0, -9.0]))
    assert OBJECTIVES[name](moved, Coefficients(BETA)).metrics["rewards_kept"].tolist() == about(0.0, 0.5)


@pytest.mark.parametrize("name", [name for name, objective in OBJECTIVES.items() if objective.reference])
def test_the_first_loss_when_the_policy_equals_the_reference(name: str) -> None:
    given = inputs()
    assert given.policy_rejected_logps_B is not None
    same = replace(
        given,
        reference_chosen_logps_B=given.policy_chosen_logps_B.detach(),
        reference_rejected_logps_B=given.policy_rejected_logps_B.detach(),
        reference_error_logps_B=given.policy_error_logps_B,
    )
    out = OBJECTIVES[name](same, Coefficients(BETA))
    expected = 2 * math.log(2) if name.startswith("spot") or name == "nca" else math.log(2)
    assert out.loss.item() == pytest.approx(expected, abs=1e-6)
    # Of the same inputs with a policy that has changed.
    first_loss = OBJECTIVES[name].first_loss(given, Coefficients(BETA))
    assert first_loss is not None
    assert first_loss.item() == pytest.approx(expected, abs=1e-6)
    assert out.metrics["tether"].tolist() == (about(0.25, 0.25) if name == "nca" else about(0.5, 0.5))


def test_the_tether_vanishes_at_a_high_reward() -> None:
    # 1 - s(10) = 4.5398e-5
    chosen, rejected, reference_chosen, reference_rejected = torch.tensor([[90.0], [0.0], [-10.0], [0.0]])
    given = LossInputs(chosen, rejected, reference_chosen, reference_rejected)
    out = OBJECTIVES["spot-bce"](given, Coefficients(0.1))
    assert out.metrics["tether"].item() == pytest.approx(4.5398e-5, rel=1e-3)


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_losses_of_micro_batches_add_up_to_the_loss_of_the_step(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    columns = [-10 * torch.rand(6, generator=generator) for _ in range(6)]
    paired_B = torch.tensor([1.0, 0.0, 1.0, 1.0, 1.0, 0.0])  # rows 2 and 6 have no y-
    lengths = [1, 4, 2, 3, 5, 2]
    token_logps_T, weights_T = -torch.rand(sum(lengths), generator=generator), torch.rand(17, generator=generator)
    starts = [sum(lengths[:index]) for index in range(7)]

    def loss(low: int, high: int, *, step_pairs: float | None = None, step_tokens: float | None = None) -> float:
        chosen, rejected, reference_chosen, reference_rejected, *errors = (column[low:high] for column in columns)
        given = LossInputs(
            chosen, rejected, reference_chosen, reference_rejected,
            paired_B=paired_B[low:high], policy_error_logps_B=errors[0], reference_error_logps_B=errors[1],
            error_B=torch.ones(high - low), chosen_token_logps_T=token_logps_T[starts[low] : starts[high]],
            chosen_token_weights_T=weights_T[starts[low] : starts[high]],
            step_pairs=step_pairs, step_tokens=step_tokens,
        )  # fmt: skip
        return OBJECTIVES[name](given, Coefficients(BETA, 0.1)).loss.item()

    step = {"step_pairs": 6.0, "step_tokens": float(weights_T.sum())}
    whole = loss(0, 6)
    assert loss(0, 6, **step) == pytest.approx(whole)
    assert loss(0, 1, **step) + loss(1, 4, **step) + loss(4, 6, **step) == pytest.approx(whole)


def test_weights_of_tokens() -> None:
    # Weights 1, 0.5 and 0. sft: (0.693147 + 0.5 * 1.386294) / 1.5 = 0.924196
    #                        dft: (0.5 * 0.693147 + 0.5 * 0.25 * 1.386294) / 1.5 = 0.346574
    # Gradients: -w / 1.5, in dft times the probability.
    for name, loss, expected in (
        ("sft", 0.924196, (-2 / 3, -1 / 3, 0.0)), ("dft", 0.346574, (-0.5 / 1.5, -0.125 / 1.5, 0.0)),
    ):  # fmt: skip
        logps_T = tokens(0.5, 0.25, 0.8)
        weights_T = torch.tensor([1.0, 0.5, 0.0])
        given = LossInputs(logps_T.sum()[None], chosen_token_logps_T=logps_T, chosen_token_weights_T=weights_T)
        out = OBJECTIVES[name](given)
        assert out.loss.item() == pytest.approx(loss, abs=2e-6)
        assert torch.autograd.grad(out.loss, logps_T)[0].tolist() == about(*expected)


def test_kept_kl_grows_faster_for_tokens_that_become_less_likely() -> None:
    # p = 0.5, q = 0.25: 0.5 + ln 2 - 1 = 0.193147, gradient 1 - 0.5.
    # p = 0.25, q = 0.5: 2 - ln 2 - 1 = 0.306853, gradient 1 - 2. p = q: 0 and 0.
    policy_K = tokens(0.5, 0.25, 0.8)
    divergence_K = kept_kl(policy_K, torch.tensor([0.25, 0.5, 0.8]).log())
    assert divergence_K.tolist() == about(0.193147, 0.306853, 0.0)
    assert torch.autograd.grad(divergence_K.sum(), policy_K)[0].tolist() == about(0.5, -1.0, 0.0)


def test_an_error_names_the_missing_log_probabilities() -> None:
    with pytest.raises(SpotError, match="reference_chosen_logps_B"):
        OBJECTIVES["dpo"](LossInputs(torch.zeros(1), torch.zeros(1)))
    with pytest.raises(SpotError, match="chosen_token_logps_T"):
        OBJECTIVES["sft"](LossInputs(torch.zeros(1)))


def test_shift_ema_starts_at_zero_and_changes_after_each_step() -> None:
    # decay 0.9: 0 -> 0.1 * 1.0 = 0.1 -> 0.09 + 0.1 * -2.0 = -0.11
    shift = RewardShift.of("ema", decay=0.9)
    seen = []
    for mean in (1.0, -2.0):
        seen.append(shift.value)
        shift.update(mean)
    assert seen == [0.0, pytest.approx(0.1)]
    assert shift.value == pytest.approx(-0.11)


def test_shift_running_is_the_mean_of_all_steps() -> None:
    shift = RewardShift.of("running")
    for mean in (1.0, -2.0, 4.0):
        shift.update(mean)
    assert shift.value == pytest.approx(1.0)


def test_shift_none_and_constant_do_not_change() -> None:
    for setting, value in (("none", 0.0), (0.3, 0.3), (0, 0.0)):
        shift = RewardShift.of(setting)
        shift.update(5.0)
        assert shift.value == value


def test_shift_is_restored_from_its_state() -> None:
    saved, restored = RewardShift.of("running"), RewardShift.of("running")
    for mean in (1.0, -2.0):
        saved.update(mean)
    restored.load_state_dict(saved.state_dict())
    saved.update(3.0)
    restored.update(3.0)
    assert restored.state_dict() == saved.state_dict()
    with pytest.raises(SpotError, match=r"expected ema with decay 0\.9, got running"):
        RewardShift.of("ema").load_state_dict(saved.state_dict())


def test_an_unknown_shift_is_an_error() -> None:
    with pytest.raises(SpotError, match="unknown reward shift"):
        RewardShift.of("mean")
