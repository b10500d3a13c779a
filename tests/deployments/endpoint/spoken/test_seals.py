"""Reasoning that a client sends back is recognised only if it was sealed here, for the same key."""

import base64
import os
import stat

from hypothesis import given
from hypothesis import strategies as st

from deployments.endpoint.spoken.seals import KeySeals, kept_secret

OURS = KeySeals(b"x" * 32, "key-a")
OTHERS = KeySeals(b"x" * 32, "key-b"), KeySeals(b"y" * 32, "key-a")


@given(st.text(), st.text(max_size=20).filter(lambda text: text.isascii()))
def test_what_was_sealed_comes_back(text, tier):
    token = OURS.sealed(text, tier)
    assert OURS.unsealed(token) == (text, tier)
    assert [other.unsealed(token) for other in OTHERS] == [None, None]
    signature = OURS.signature(text, tier)
    assert OURS.signer(text, signature) == tier
    assert [other.signer(text, signature) for other in OTHERS] == [None, None]
    assert OURS.signer(text + "!", signature) is None


@given(st.text(max_size=80))
def test_other_tokens_are_nothing(token):
    assert OURS.unsealed(token) is None and OURS.signer("text", token) is None


def test_a_changed_token_is_nothing():
    raw = bytearray(base64.b64decode(OURS.sealed("a thought", "large")))
    for place in range(len(raw)):
        changed = bytes(raw[:place]) + bytes([raw[place] ^ 1]) + bytes(raw[place + 1 :])
        assert OURS.unsealed(base64.b64encode(changed).decode()) is None


def test_a_signature_of_another_tier_is_nothing():
    mac, _, _ = OURS.signature("a thought", "small").partition(".")
    assert OURS.signer("a thought", f"{mac}.{base64.urlsafe_b64encode(b'large').decode()}") is None


def test_the_secret_is_made_once_and_is_this_users_own(tmp_path):
    file = tmp_path / "secret"
    made = kept_secret(file)
    assert kept_secret(file) == made and len(made) == 32
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
