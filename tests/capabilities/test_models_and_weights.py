"""What models can be made of, and where their weights come from, row by row of the capabilities.

W: layers, branches, mixed models, initial values; P: regressors, batch norm, errors of shapes;
T: summaries, loading, initializers, layers; C: pretrained models, shapes of layers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from conftest import bits
from mixed_model import mixed
from toolz import pipe
from torch import nn
from torch.nn.functional import mse_loss

import mip
from mip.errors import FileError, SpecError
from mip.model import count_layers, plan_nodes, profile, summary
from mip.nn import MLP, ConvStack, InitRule, lsuv, reinit
from mip.runs import prepare_job

PIXELS = [np.zeros((9, 9, 3), np.uint8)]
ROWS = mip.from_columns(
    {"photo": PIXELS * 16, "y": np.arange(16.0), **{f"x{k}": np.arange(16.0) + k for k in range(7)}}
)
PRICE = 'head = { kind = "regression", column = "y" }\n'


def photo(functions=None, **fields):
    """A spec of one image branch and a head."""
    branch = {"kind": "image", "columns": ["photo"], "size": 256, **fields}
    return mip.parse(PRICE, {**mip.KINDS, **(functions or {})}, {"branch.photo": branch})


def maps_of(spec):
    """The shapes of what the backbone's layers return for a row, by the type of the layer."""
    plan = mip.adapt(spec, ROWS)
    nodes = profile(mip.build(plan), plan.example())
    return [(n.kind, n.shape[1:]) for n in nodes if n.is_layer and ".backbone." in n.path]


# Layers and branches.


def test_W12_any_function_is_a_layer_and_its_output_is_checked():
    def doubled(x):
        return 2 * x

    text = PRICE + 'branch.a = { kind = "stub", out_features = 3 }\nfusion.layers = ["doubled", 4]'
    kinds = {**mip.KINDS, "doubled": doubled, "flat": torch.flatten}
    net = mip.build(mip.adapt(mip.parse(text, kinds), ROWS))
    assert net.body.layers[0](torch.ones(2, 3)).tolist() == [[2, 2, 2]] * 2
    with pytest.raises(SpecError, match=r"layers\[0\] = 'flat' must return \[1, …\] for \[1, 3\]"):
        mip.build(mip.adapt(mip.parse(text.replace("doubled", "flat"), kinds), ROWS))


STUBS = {"a": 10, "b": 5}


def test_W13_stub_branches_test_the_wiring():
    changes = {f"branch.{n}": {"kind": "stub", "out_features": n_out} for n, n_out in STUBS.items()}
    plan = mip.adapt(mip.parse(PRICE, changes=changes), ROWS)
    net = mip.build(plan)
    inputs = plan.encode(ROWS).inputs
    assert net.body(inputs).shape == (16, 15)
    assert net.head[-1](net.body(inputs)).shape == (16, 1)


def test_W14_an_mlp_from_a_list_of_sizes():
    net = MLP([7, 10, 5, 1])
    assert [type(layer) for layer in net] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    assert net(torch.zeros(16, 7)).shape == (16, 1)
    columns = [f"x{k}" for k in range(7)]
    head = {"kind": "regression", "column": "y", "layers": [10, 5]}
    branch = {"kind": "continuous", "columns": columns}
    plan = mip.adapt(mip.parse("", changes={"head": head, "branch.x": branch}), ROWS)
    sizes = [tuple(p.shape) for p in mip.build(plan).head.parameters() if p.dim() == 2]
    assert sizes == [(10, 7), (5, 10), (1, 5)]


def test_W15_a_stack_of_convolutions():
    assert ConvStack([5, 7, 12], global_pool="none")(torch.zeros(16, 3, 256, 256)).shape == (
        *(16, 12, 32, 32),
    )
    spec = photo(backbone="conv", channels=[5, 7, 10, 14])
    sizes = [shape for kind, shape in maps_of(spec) if kind == "Conv2d"]
    assert sizes == [(5, 128, 128), (7, 64, 64), (10, 32, 32), (14, 16, 16)]
    whole = mip.parse(mip.dump(spec), changes={"head.layers": [20, 10]})
    assert sum(p.numel() for p in mip.build(mip.adapt(whole, ROWS)).parameters()) == 2_897


def test_W16_a_resnet_with_layers_behind_it():
    spec = photo(backbone="resnet34", feature_layer="fc", layers=[50, 20, 10], size=32)
    plan = mip.adapt(spec, ROWS)
    net = mip.build(plan).eval()
    assert net.body(plan.encode(ROWS).inputs).shape == (16, 10)


def test_W17_a_backbone_is_cut_to_its_feature_map():
    spec = photo(backbone="resnet34", feature_layer="layer4", global_pool="none")
    plan = mip.adapt(spec, ROWS)
    net = mip.build(plan).eval()
    inputs = plan.encode(ROWS.take([0, 1])).inputs
    with torch.no_grad():
        assert net.body.branch["photo"](inputs["photo"]).shape == (2, 512, 8, 8)


def test_W18_a_mixed_model_is_one_spec():
    spec, rows = mixed()
    plan = mip.adapt(spec, rows)
    net = mip.build(plan).eval()
    assert sum(param.numel() for param in net.parameters()) == 21_849_189
    assert [layer.weight.shape for layer in net.head if isinstance(layer, nn.Linear)] == [
        (7, 14),
        (1, 7),
    ]
    assert net(plan.encode(rows).inputs).shape == (4,)


TABLE = """
[branch.table]
kind = "tabular"
continuous = ["x0", "x1"]
network = { kind = "mlp", layers = [10, 5] }
[head]
kind = "regression"
column = "y"
[train]
epochs = 1
"""


def test_W19_a_branch_is_trained_alone_and_goes_into_the_mixed_tree(tmp_path):
    alone = mip.run(mip.parse(TABLE), mip.model.Parts(ROWS, ROWS, ROWS), out=tmp_path / "alone")
    start = f'[warm_start]\ntable = "{tmp_path}/alone/model.safetensors"\n'
    stub = '[branch.later]\nkind = "stub"\n'
    spec = mip.parse(TABLE + stub + start)
    job = prepare_job(spec, mip.model.Parts(ROWS, ROWS, ROWS))
    shared = {path for path in alone.state.params if path.startswith("body.branch.table.")}
    assert len(shared) == 5
    assert all(job.start.state.params[path].equal(alone.state.params[path]) for path in shared)


def test_W19_a_part_of_a_plain_net_is_trained_alone(tmp_path):
    encoder = MLP([3, 4, 2])
    mip.save_weights(tmp_path / "encoder.safetensors", encoder)
    whole = nn.ModuleDict({"encoder": MLP([3, 4, 2]), "head": nn.Linear(2, 1)})
    mip.load_weights(whole["encoder"], tmp_path / "encoder.safetensors", strict=True)
    assert bits(whole["encoder"].state_dict()) == bits(encoder.state_dict())


def test_W20_names_shapes_and_counts_of_layers():
    plan = mip.adapt(mip.parse(TABLE), ROWS)
    nodes = plan_nodes(plan, mip.build(plan), layers=True)
    listed = [(node.path, node.shape, node.parameters) for node in nodes if node.parameters]
    assert ("branch.table.1.0", ("n", 10), 30) in listed
    assert ("head.0", ("n", 1), 6) in listed


def test_W21_a_rule_initializes_the_layers_that_it_names():
    rule = '[[init]]\nmatch = "head.*.weight"\ninitializer = "ones"\n'
    before, after = (
        mip.build(mip.adapt(mip.parse(TABLE + text), ROWS)).state_dict() for text in ("", rule)
    )
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed == {"head.0.weight"}
    assert after["head.0.weight"].eq(1).all()
    zeroed = reinit(before, [InitRule("*.bias", lambda tensor: tensor.zero_())])
    assert {name for name in before if zeroed[name] is not before[name]} == {
        name for name in before if name.endswith("bias")
    }
    assert zeroed["head.0.bias"].eq(0).all()


def test_W54_momentum_adam_decay_and_initial_values_from_statistics():
    net = MLP([7, 64, 64, 1])
    x = torch.randn(256, 7, generator=torch.Generator().manual_seed(0))
    net.load_state_dict(lsuv(net, x))
    hidden = nn.Sequential(*list(net)[:3])(x)
    assert float(hidden.detach().var()) == pytest.approx(1, abs=0.05)
    batches, losses = pipe((x, x.sum(1)), mip.batch(64)), []
    decayed = mip.adamw(1e-2, weight_decay=0.1)
    for optimizer in (mip.sgd(0.01, momentum=0.9), mip.adam(1e-2), decayed):
        step = mip.train_step(net, mse_loss, optimizer)
        _, history = mip.fit(step, batches, step.init(), epochs=5)
        losses.append(history.epochs[-1]["loss"] < history.epochs[0]["loss"])
    assert losses == [True] * 3


# Summaries and weights.


def test_T03_a_summary_before_training():
    made = summary(MLP([784, 100, 100, 100, 10]), torch.zeros(1, 784))
    assert (made.parameters, made.multiply_adds) == (99_710, 99_400)
    assert made.counts == {"Linear": (4, 4), "ReLU": (3, 3)}
    with torch.device("meta"):
        resnet = summary(torchvision.models.resnet50(), torch.zeros(1, 3, 224, 224))
    assert (resnet.parameters, resnet.multiply_adds) == (25_557_032, 4_089_184_256)
    runs = {kind: calls for kind, (_, calls) in resnet.counts.items()}
    assert (runs["Conv2d"], runs["BatchNorm2d"], runs["ReLU"]) == (53, 53, 49)
    assert "1 × 3 × 224 × 224  1 × 64 × 112 × 112       9,408    118,013,952" in str(resnet)


def test_T04_a_summary_of_several_inputs():
    spec, rows = mixed()
    plan = mip.adapt(spec, rows)
    made = summary(mip.build(plan), plan.example())
    assert made.parameters == 21_849_189
    for text in ("uint8 [1, 1, 3, 64, 64]", "float32 [1, 7]"):
        assert text in str(made).splitlines()[0]


def test_T16_weights_of_others_with_a_report(tmp_path):
    wrapped = nn.DataParallel(torchvision.models.resnet18(num_classes=5))
    torch.save({"state_dict": wrapped.state_dict(), "epoch": 3}, tmp_path / "a.pt")
    net = torchvision.models.resnet18(num_classes=2)
    net.extra = nn.Linear(1, 1)
    report = mip.load_weights(net, tmp_path / "a.pt")
    assert net.conv1.weight.equal(wrapped.module.conv1.weight)
    assert report.missing == ("extra.weight", "extra.bias")
    assert report.mismatched == {"fc.weight": ((5, 512), (2, 512)), "fc.bias": ((5,), (2,))}
    assert "fc.weight is [5, 512] in the file and [2, 512] in the net" in str(report)
    with pytest.raises(FileError, match=r"fc\.weight is \[5, 512\]"):
        mip.load_weights(net, tmp_path / "a.pt", strict=True)


# Initializers and layers.


def test_T26_initializers_are_a_field_of_specs():
    theory = {"kaiming_normal": (2 / 300) ** 0.5, "xavier_normal": (2 / 700) ** 0.5, "zeros": 0.0}
    for initializer, std in theory.items():
        rule = f'[[init]]\nmatch = "head.0.weight"\ninitializer = "{initializer}"\n'
        head = {"kind": "regression", "column": "y", "layers": [400]}
        stub = {"kind": "stub", "out_features": 300}
        net = mip.build(mip.adapt(mip.parse(rule, changes={"head": head, "branch.a": stub}), ROWS))
        assert float(net.head[0].weight.detach().std()) == pytest.approx(std, rel=0.05)


def test_T27_flatten_global_pools_swish_and_depthwise_convolutions():
    options = {"separable": True, "activation": "silu", "batch_norm": "before"}
    for pool, width in (("avg", 6), ("max", 6), ("none", 6 * 8 * 8)):
        spec = photo(backbone="conv", channels=[4, 6], size=32, global_pool=pool, **options)
        layers = maps_of(spec)
        assert ("Conv2d", (4, 8, 8)) in layers  # one kernel for each channel, then 1 x 1
        assert ("SiLU", (6, 8, 8)) in layers
        net = mip.build(mip.adapt(spec, ROWS))
        assert net.head[0].in_features == width  # a map is flattened


CIFAR = """
[branch.picture]
kind = "image"
columns = ["photo"]
size = 32
backbone = "conv"
channels = [64, 128, 256]
depth = 3
stride = 1
max_pool = true
batch_norm = "before"
augmentation = { flip = true, crop = 0.1 }
[head]
kind = "multiclass"
column = "y"
[train]
epochs = 120
batch_size = 16
optimizer = { kind = "sgd", lr = 0.1, momentum = 0.9 }
schedule = { kind = "multi_step", milestones = [0.5, 0.75], gamma = 0.1 }
"""


def test_T33_the_net_for_cifar_is_a_spec():
    parts = mip.model.Parts(ROWS, ROWS.take([]), ROWS.take([]))
    job = prepare_job(mip.parse(CIFAR), parts, mip.Context(device="cpu"))
    counts = count_layers(profile(job.step.net, job.plan.example()))
    assert {kind: n for kind, (n, _) in counts.items() if kind[-2:] == "2d"} == {
        "AdaptiveAvgPool2d": 1,
        "BatchNorm2d": 9,
        "Conv2d": 9,
        "MaxPool2d": 2,
    }
    assert job.steps == 120
    assert mip.fit(job.step, job.batches, job.start.state, steps=1).step == 1


def test_C04_the_last_layer_of_a_pretrained_model_is_replaced():
    pytest.importorskip("timm")
    rows = mip.from_columns({"photo": PIXELS * 53, "card": [f"card {k}" for k in range(53)]})
    branch = {"kind": "image", "columns": ["photo"], "size": 32, "backbone": "timm/efficientnet_b0"}
    head = {"kind": "multiclass", "column": "card"}
    net = mip.build(mip.adapt(mip.parse("", changes={"branch.a": branch, "head": head}), rows))
    assert net.head[-1].weight.shape == (53, 1280)


def test_C05_the_shapes_of_all_layers(tmp_path, run):
    (tmp_path / "rows.csv").write_text("x0,x1,y\n" + "1,2,3\n4,5,6\n" * 5)
    text = f'[data]\ntable = "rows.csv"\n{TABLE}'
    (tmp_path / "a.toml").write_text(text)
    code, out, err = run("show", tmp_path / "a.toml", "--layers")
    assert code == 0, err
    (line,) = [line for line in out.splitlines() if "table.1.2" in line]
    assert "n × 10" in line
    assert "n × 5" in line


# Regressors.

CARS = mip.read(Path(__file__).parents[1] / "saved" / "cars.csv")


def error_of_cars(layers, activation="relu", lr=1.0, steps=100):
    """The mean squared error of a regressor on its own rows, and nothing but the spec changes."""
    spec = mip.parse(f"""
        branch.x = {{ kind = "continuous", columns = ["WGT"] }}
        [head]
        kind = "regression"
        column = "MPG"
        scale = "none"
        layers = {layers}
        activation = "{activation}"
    """)
    plan = mip.adapt(spec, CARS)
    step = mip.train_step(mip.build(plan), plan.loss, mip.adam(lr))
    batches = pipe(plan.encode(CARS), mip.batch(len(CARS)))
    state, _ = mip.fit(step, batches, step.init(), epochs=steps)
    return mip.evaluate(mip.predictor(plan, state), CARS)["loss"]


def test_P09_two_linear_layers_are_one():
    assert error_of_cars([1], "none", lr=0.3, steps=200) == pytest.approx(18.6766, abs=0.01)


def test_P10_other_regressors_are_other_specs():
    line, widest = error_of_cars([]), error_of_cars([1000], "relu", 0.1, 300)
    bent, wider = error_of_cars([1], "sigmoid", 0.1, 1000), error_of_cars([5])
    assert line > bent > widest
    assert line > wider > widest
    assert line > error_of_cars([5, 5])


def test_P21_batch_norm_before_or_after_the_activation():
    for where, order in (
        ("before", [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]),
        ("after", [nn.Linear, nn.ReLU, nn.BatchNorm1d, nn.Linear]),
    ):
        text = TABLE.replace('column = "y"', f'column = "y"\nlayers = [4]\nbatch_norm = "{where}"')
        plan = mip.adapt(mip.parse(text), ROWS)
        net = mip.build(plan)
        assert [type(layer) for layer in net.head] == order
        before = bits(dict(net.named_buffers()))
        mip.predict(net, pipe(plan.encode(ROWS), mip.batch(4)))
        assert bits(dict(net.named_buffers())) == before
        step = mip.train_step(net, plan.loss, mip.sgd(0.1))
        state, _ = mip.fit(step, pipe(plan.encode(ROWS), mip.batch(4)), step.init(), epochs=1)
        assert bits(state.buffers) != before


def test_P13_an_error_of_shapes_names_the_layer_and_both_shapes():
    step = mip.train_step(MLP([7, 5, 1]), mse_loss, mip.sgd(0.1))
    wrong = pipe((torch.zeros(4, 6), torch.zeros(4)), mip.batch(4))
    with pytest.raises(mip.MipError, match=r"layer '0', a Linear .* \[5, 7\] .* \[4, 6\]"):
        mip.fit(step, wrong, step.init(), epochs=1)
    shapes = r"photo.backbone = 'flat' must return .* for \[1, 3, 8, 8\], not \[192\]"
    with pytest.raises(SpecError, match=shapes):
        mip.build(mip.adapt(photo({"flat": lambda: nn.Flatten(0)}, size=8, backbone="flat"), ROWS))
