"""The recurrence is the textbook's, and its state outlasts a training window."""

from __future__ import annotations

import torch

from lr_gym.models.language_model import initial_parameters
from lr_gym.models.lstm import LSTM, Layer


def test_a_layer_is_the_textbooks_lstm_written_out() -> None:
    layer = Layer(8, 0.0, 0, bias=True)
    generator = torch.Generator().manual_seed(0)
    for weight in layer.parameters():
        torch.nn.init.normal_(weight, generator=generator)
    x = torch.randn(2, 5, 8, generator=generator)
    hidden = cell = torch.zeros(2, 8)
    for t, seen in enumerate(layer.norm(x).unbind(dim=1)):
        gates = layer.input(seen) + layer.recurrent(hidden)
        enter, forget, new, out = gates.chunk(4, dim=1)
        cell = (forget + 1).sigmoid() * cell + enter.sigmoid() * new.tanh()
        hidden = out.sigmoid() * cell.tanh()
        torch.testing.assert_close(layer(x, None, None)[:, t], x[:, t] + hidden)


def test_the_state_carries_what_was_read_long_ago() -> None:
    model = LSTM(vocab_size=11, n_layer=1, n_embd=16)
    weights = initial_parameters(model, torch.Generator().manual_seed(0))
    model.load_state_dict(weights)
    tokens = torch.zeros(2, 40, dtype=torch.int64)
    tokens[1, 0] = 1
    logits = model.double()(tokens)[:, -1]
    assert not torch.equal(logits[0], logits[1])
