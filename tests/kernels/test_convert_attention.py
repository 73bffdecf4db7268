"""``convert`` on torch's attention and encoders: the same for whatever they are asked, or left to torch."""

import copy
import io
import random
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leanmark_kernels.convert import Recipe, convert
from leanmark_kernels.convert.attention import Attention, Encoder, EncoderLayer
from leanmark_kernels.convert.decoder import Transformer
from leanmark_kernels.convert.rewriting import rewrite

from .convert_models import UNCACHED, largest_error, trained

pytestmark = [
    pytest.mark.filterwarnings("ignore:enable_nested_tensor is True, but"),
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.filterwarnings("ignore:Support for mismatched"),  # a mask of bools beside one of numbers
]

TANH_GELU: Any = nn.GELU("tanh")
ACTIVATIONS: tuple[Any, ...] = ("relu", "gelu", nn.GELU(), torch.tanh)  # torch takes a name or a function

PARTS = ("self_attn.in_proj", "self_attn.out_proj", "linear1", "linear2")


def randomized(module: nn.Module) -> nn.Module:
    """In evaluation mode; torch's own first weights hide a bias and give every layer the same."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.eval()


def layer(**options: Any) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(8, 2, 16, **{"batch_first": True, **options})


def encoder(count: int = 2, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return randomized(nn.TransformerEncoder(layer(), count, **options))


def padding(draw: random.Random, batch: int, tokens: int) -> Tensor | None:
    """Behind or among the tokens of each sequence, whose first is never hidden; of bools or numbers."""
    behind = torch.arange(tokens) >= torch.tensor([[draw.randint(1, tokens)] for _ in range(batch)])
    among = torch.rand(batch, tokens) < 0.4
    among[:, 0] = False
    mask = draw.choice([None, behind, among])
    as_numbers = torch.zeros(batch, tokens)
    return mask if mask is None or draw.random() < 0.7 else as_numbers.masked_fill(mask, -torch.inf)


def places(draw: random.Random, heads: int, queries: int, keys: int) -> Tensor | None:
    """A mask [T, S] or [heads, T, S], of bools, of the places after each, or numbers that are added."""
    after = torch.ones(queries, keys).triu(1).bool()
    each = torch.randn(heads, queries, keys)
    return draw.choice(
        [None, after, torch.zeros(queries, keys).masked_fill(after, -torch.inf), each[0], each]
    )


@pytest.mark.parametrize("seed", range(30))
def test_an_encoder_computes_the_same(seed: int) -> None:
    draw = random.Random(seed)
    torch.manual_seed(seed)
    heads, batch, tokens = draw.choice([1, 2, 4]), draw.choice([1, 3]), draw.choice([1, 4, 5])
    batch_first, batched = draw.random() < 0.6, draw.random() < 0.8
    torch_layer = nn.TransformerEncoderLayer(
        8, heads, 12, activation=draw.choice(ACTIVATIONS),
        bias=draw.random() < 0.7, batch_first=batch_first, norm_first=draw.random() < 0.5,
    )  # fmt: skip
    norm = draw.choice([None, nn.LayerNorm(8)])
    model = randomized(nn.TransformerEncoder(torch_layer, 2, norm, enable_nested_tensor=draw.random() < 0.7))
    x = torch.randn(tokens, 8) if not batched else torch.randn(batch, tokens, 8)
    x = x.transpose(0, 1) if batched and not batch_first else x
    mask, padded = (
        places(draw, heads * (batch if batched else 1), tokens, tokens),
        padding(draw, batch, tokens),
    )
    padded = padded if batched or padded is None else padded[0]
    # torch's fast path, which it takes without gradients, takes numbers that are added for places to mask
    added = mask is not None and mask.is_floating_point() and bool((mask.isfinite() & (mask != 0)).any())
    rewritten, left = rewrite(copy.deepcopy(model), (x,))
    with torch.set_grad_enabled(added):
        expected = model(x, mask, padded).detach()
    with torch.no_grad():
        found = rewritten(x, mask, padded)
    assert left == () and any(isinstance(part, Attention) for part in rewritten.modules())
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("seed", range(30))
def test_attention_computes_the_same_with_its_weights(seed: int) -> None:
    draw = random.Random(seed)
    torch.manual_seed(seed)
    heads, batch, queries = draw.choice([1, 2, 4]), draw.choice([1, 3]), draw.choice([1, 4])
    batch_first, batched, itself = draw.random() < 0.6, draw.random() < 0.8, draw.random() < 0.5
    keys, width = (queries, 8) if itself else (draw.choice([2, 5]), draw.choice([8, 6]))
    model = randomized(
        nn.MultiheadAttention(
            8, heads, kdim=width, vdim=width, batch_first=batch_first, bias=draw.random() < 0.7
        )
    )
    sizes = (batch,) if batched else ()
    query, key = torch.randn(*sizes, queries, 8), torch.randn(*sizes, keys, width)
    value = torch.randn(*sizes, keys, width)
    given = (query, query, query) if itself else (query, key, value)
    if batched and not batch_first:
        query, key, value = (each.transpose(0, 1) for each in given)
        given = (query, query, query) if itself else (query, key, value)
    padded = padding(draw, batch, keys)
    masks = {
        "attn_mask": places(draw, heads * (batch if batched else 1), queries, keys),
        "key_padding_mask": padded if batched or padded is None else padded[0],
    }
    asked = {"need_weights": draw.random() < 0.7, "average_attn_weights": draw.random() < 0.5}
    with torch.no_grad():
        rewritten, left = rewrite(copy.deepcopy(model), given)
        expected, weights = model(*given, **masks, **asked)
        found, found_weights = rewritten(*given, **masks, **asked)
    assert left == () and isinstance(rewritten, Attention) and hasattr(rewritten, "in_proj") == itself
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found_weights, weights, atol=1e-6, rtol=1e-5)


class Padded(nn.Module):
    """Embeds, encodes without padding, averages; traced by torch.fx or, with a branch on values, not."""

    def __init__(self, encoder: nn.Module, branches: bool = False) -> None:
        super().__init__()
        self.embed, self.encoder, self.classify = nn.Linear(6, 8), encoder, nn.Linear(8, 3)
        self.branches = branches

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        if self.branches and x.sum() > 1e9:
            return x
        states = self.encoder(src=self.embed(x), src_key_padding_mask=padding)
        result: Tensor = self.classify(states.mean(1))
        return result


def sequences(batch: int = 2) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(batch, 4, 6), torch.arange(4) >= torch.randint(1, 5, (batch, 1))


@pytest.mark.parametrize("branches", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_all_layers_of_an_encoder_are_converted(nested: bool, branches: bool) -> None:
    model = Padded(encoder(enable_nested_tensor=nested), branches).eval()
    converted = convert(model, sequences(), UNCACHED)
    what = {choice.layer: choice.what for choice in converted.choices}
    inside = [f"encoder.layers.{number}.{part}" for number in range(2) for part in PARTS]
    assert set(what) == {"embed", *inside, "classify"}
    assert what["encoder.layers.1.self_attn.in_proj"] == "linear 8->24 + bias of 2x4x8"
    assert what["encoder.layers.1.self_attn.out_proj"] == "linear 8->8 + bias + residual of 2x4x8"
    assert what["encoder.layers.1.linear1"] == "linear 8->16 + bias + relu of 2x4x8"
    assert bool(converted.untraced) == branches and converted.left_alone == ()
    with torch.no_grad():
        for batch in (2, 5):
            torch.testing.assert_close(converted(*sequences(batch)), model(*sequences(batch)))


def test_a_converted_encoder_is_copied_saved_and_loaded() -> None:
    recipe = Recipe(weights="w8", rounds=1, cache=None)
    converted = convert(Padded(encoder()).eval(), sequences(), recipe)
    assert {choice.weights for choice in converted.choices} == {"w8"}
    file = io.BytesIO()
    torch.save(converted, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    with torch.no_grad():
        expected = converted(*sequences())
        assert copy.deepcopy(converted)(*sequences()).equal(expected)
        assert loaded(*sequences()).equal(expected)
        for buffer in loaded.buffers():
            if buffer.dtype == torch.float32:
                buffer.zero_()
        loaded.load_state_dict(converted.state_dict())
        assert loaded(*sequences()).equal(expected)


class Across(nn.Module):
    """Attention of its own to a few learnt places, as in a decoder; ``read`` looks at a weight of it."""

    def __init__(self, read: bool = False, **options: object) -> None:
        super().__init__()
        self.memory = nn.Parameter(torch.randn(1, 3, 8))
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True, **options)
        self.read = read

    def forward(self, x: Tensor) -> Tensor:
        memory = self.memory.expand(x.shape[0], -1, -1)
        mixed, weights = self.attend(x, memory, memory)
        if self.read:
            mixed = mixed * self.attend.in_proj_weight.mean()
        return torch.cat([mixed, weights], -1)


def test_attention_to_other_tensors_and_its_weights() -> None:
    model = trained(Across())
    converted = convert(model, torch.randn(2, 4, 8), UNCACHED)
    assert [choice.layer.removeprefix("attend.") for choice in converted.choices] == [
        "q_proj", "k_proj", "v_proj", "out_proj",
    ]  # fmt: skip
    assert converted.untraced == ()
    assert largest_error(converted, model, torch.randn(3, 4, 8)) < 1e-5


class MyLayer(nn.TransformerEncoderLayer):
    pass


def changed(**parts: nn.Module) -> nn.TransformerEncoderLayer:
    module = layer()
    for name, part in parts.items():
        setattr(module, name, part)
    return module


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (layer(), None),
        (layer(activation=nn.GELU()), None),
        (
            layer(activation=nn.GELU("tanh"), bias=False),
            "takes its activation, GELU(approximate='tanh'), for",
        ),
        (changed(activation=nn.SiLU()), "torch's fast path takes its activation, SiLU(), for ReLU or exact"),
        (changed(linear2=nn.Bilinear(16, 8, 8)), "its linear2 is a Bilinear"),
        (changed(self_attn=nn.MultiheadAttention(8, 2, add_bias_kv=True)), "it has add_bias_kv or add_zero"),
    ],
)
def test_an_encoder_layer_that_torch_itself_would_compute_otherwise_is_left_to_it(
    module: nn.TransformerEncoderLayer, reason: str | None
) -> None:
    found = EncoderLayer.why_not(module)
    stack = Encoder.why_not(nn.TransformerEncoder(module, 2, enable_nested_tensor=False))
    if reason is None:
        assert found is stack is None
    else:
        assert reason in str(found) and str(found) in str(stack)
    mine = nn.TransformerEncoder(MyLayer(8, 2), 1, enable_nested_tensor=False)
    assert Encoder.why_not(mine) == "its layers.0 is a MyLayer"


class Stacked(nn.Module):
    """In code that cannot be traced, looks at one of the layers."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = encoder(enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x if len(x) else -x
        layers: Any = self.attend.layers
        result: Tensor = self.attend(x) * layers[0].linear1.in_features
        return result


@pytest.mark.parametrize(
    ("model", "name", "reason"),
    [
        (Across(add_zero_attn=True), "1.attend", "it has add_bias_kv or add_zero_attn, so a key and a value"),
        (Across(read=True), "Sequential", "CrossAttention' object has no attribute 'in_proj_weight"),
        (Stacked(), "Sequential", "object is not subscriptable"),
        (MyLayer(8, 2, 16, batch_first=True), "1", "it is a MyLayer, whose code is torch's and may read"),
    ],
)
def test_what_is_left_to_torch_is_named_and_the_rest_converted(
    model: nn.Module, name: str, reason: str
) -> None:
    model = trained(nn.Sequential(nn.Linear(6, 8), model))
    converted = convert(model, torch.randn(2, 4, 6), UNCACHED)
    (left,) = converted.left_alone
    assert left.module == name and re.search(reason, left.reason)
    assert [choice.layer for choice in converted.choices] == ["0"]
    assert largest_error(converted, model, torch.randn(3, 4, 6)) < 1e-5


@pytest.mark.parametrize("seed", range(20))
def test_a_whole_transformer_computes_the_same(seed: int) -> None:
    draw = random.Random(seed)
    torch.manual_seed(seed)
    batch, sources, targets, batch_first = draw.choice([1, 3]), 5, draw.choice([1, 4]), draw.random() < 0.5
    model = randomized(
        nn.Transformer(
            8, 2, 1, 2, 12, activation=draw.choice(["relu", TANH_GELU]), bias=draw.random() < 0.7,
            batch_first=batch_first, norm_first=draw.random() < 0.5,
        )
    )  # fmt: skip
    given: tuple[Tensor, ...] = torch.randn(batch, sources, 8), torch.randn(batch, targets, 8)
    given = given if batch_first else tuple(each.transpose(0, 1) for each in given)
    masks = {
        "tgt_mask": places(draw, batch * 2, targets, targets),
        "memory_mask": places(draw, batch * 2, targets, sources),
        "src_key_padding_mask": padding(draw, batch, sources),
        "tgt_key_padding_mask": padding(draw, batch, targets),
        "memory_key_padding_mask": padding(draw, batch, sources),
    }
    rewritten, left = rewrite(copy.deepcopy(model), given)
    with torch.no_grad():
        expected, found = model(*given, **masks), rewritten(*given, **masks)
    assert isinstance(rewritten, Transformer)
    assert all(one.module == "encoder" and "fast path takes its activation" in one.reason for one in left)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


class Translating(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.transformer, self.score = nn.Transformer(8, 2, 1, 1, 16), nn.Linear(8, 5)
        self.mask = nn.Buffer(self.transformer.generate_square_subsequent_mask(3))

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        result: Tensor = self.score(self.transformer(source, target, tgt_mask=self.mask, tgt_is_causal=True))
        return result


def test_all_layers_of_a_transformer_are_converted() -> None:
    model = randomized(Translating())
    source, target = torch.randn(4, 2, 8), torch.randn(3, 2, 8)
    converted = convert(model, (source, target), UNCACHED)
    layers = [choice.layer for choice in converted.choices]
    across = [f"multihead_attn.{part}" for part in ("q_proj", "k_proj", "v_proj", "out_proj")]
    in_decoder = [*PARTS[:2], *across, *PARTS[2:]]
    assert set(layers) == {
        *(f"transformer.encoder.layers.0.{part}" for part in PARTS),
        *(f"transformer.decoder.layers.0.{part}" for part in in_decoder),
        "score",
    }
    assert (converted.untraced, converted.left_alone) == ((), ())
    with torch.no_grad():
        torch.testing.assert_close(converted(source, target), model(source, target), atol=1e-5, rtol=1e-5)


class Unnormed(nn.TransformerEncoderLayer):
    """With code of its own, which calls the parts."""

    def forward(self, src: Tensor) -> Tensor:  # type: ignore[override]
        src = src + self.self_attn(src, src, src, need_weights=False)[0]
        result: Tensor = src + self.linear2(torch.relu(self.linear1(src)))
        return result


def test_a_layer_whose_code_is_the_users_is_converted_as_any_other() -> None:
    model = trained(nn.Sequential(Unnormed(8, 2, 16, batch_first=True)))
    converted = convert(model, torch.randn(2, 4, 8), UNCACHED)
    assert [choice.layer for choice in converted.choices] == [f"0.{part}" for part in PARTS]
    assert (converted.untraced, converted.left_alone) == ((), ())
    assert largest_error(converted, model, torch.randn(3, 5, 8)) < 1e-5


def test_a_hint_that_torch_follows_and_we_need_not_is_left_to_it_where_it_is_wrong() -> None:
    class Hinted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attend = nn.MultiheadAttention(8, 1)

        def forward(self, x: Tensor) -> Tensor:
            mask = torch.zeros(4, 4, dtype=torch.bool)
            result: Tensor = self.attend(x, x, x, need_weights=False, attn_mask=mask, is_causal=True)[0]
            return result

    (left,) = convert(trained(Hinted()), torch.randn(4, 2, 8), UNCACHED).left_alone
    assert left.module == "Hinted" and "computes something else when converted" in left.reason


def test_a_mask_of_whole_numbers_is_refused_as_by_torch() -> None:
    rewritten, _ = rewrite(encoder(), (torch.randn(2, 4, 8),))
    with pytest.raises(TypeError, match=r"a mask is torch.uint8; it must be of bools or of floating-point"):
        rewritten(torch.randn(2, 4, 8), src_key_padding_mask=torch.zeros(2, 4, dtype=torch.uint8))


def test_a_layer_in_two_places_is_one_in_both() -> None:
    shared = layer()
    stack = nn.TransformerEncoder(shared, 2, enable_nested_tensor=False)
    stack.layers[1] = shared
    model = nn.Sequential(shared, stack, shared)
    found, left = rewrite(randomized(model), (torch.randn(2, 4, 8),))
    first, copied, second, last = map(found.get_submodule, ("0", "1.layers.0", "1.layers.1", "2"))
    assert left == () and first is second is last
    assert first is not copied
    assert first.get_parameter("self_attn.in_proj.weight") is shared.self_attn.in_proj_weight
