"""The embedded base is MiniLM, exactly, in DistilBERT's form."""

import pytest
import torch
from transformers import BertModel

from model_repo.pipeline.base_model import EMBEDDED, embedded_folder, load_base


def test_folded_minilm_gives_the_hidden_states_of_the_bert_it_came_from() -> None:
    """Padded and unpadded rows agree with BERT to 1e-5, so nothing was lost in the folding."""
    bert = BertModel.from_pretrained(embedded_folder()).eval()
    distilbert = load_base(EMBEDDED)[0].eval()
    ids = torch.tensor([[101, 2073, 2003, 2026, 2344, 102], [101, 7592, 102, 0, 0, 0]])
    mask = (ids != 0).long()
    with torch.no_grad():
        expected = bert(ids, attention_mask=mask).last_hidden_state
        got = distilbert(ids, attention_mask=mask).last_hidden_state
    assert (expected - got).abs()[mask.bool()].max() < 1e-5


def test_base_of_another_architecture_is_refused_by_name(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A checkpoint that is neither DistilBERT nor BERT cannot be trained here, and the error says which it is."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match="gpt2"):
        load_base(str(folder))
