"""`ECDSA`, the key pair: it signs messages and verifies signatures."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from functools import partial, wraps
from hashlib import sha256
from typing import Literal, ParamSpec, TypeVar, overload

import ecdsa

from pymdc._arguments import Text as Key
from pymdc._arguments import raw, text
from pymdc._crypto import secp256k1 as _secp256k1
from pymdc._crypto.ripemd160 import ripemd160

_TextForm = Literal["hex", "base64", "b64"]

_PUBLIC_SIZES = (33, 64, 65)
_PUBLIC_EXPECTED = (
    "expected a point on secp256k1: 33, 64 or 65 bytes, or their hexadecimal or base64 text"
)
_PRIVATE_EXPECTED = (
    "expected 32 bytes between zero and the order of secp256k1, or their hexadecimal or base64 text"
)


_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def _without_frames(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Return *function*, changed so that its exceptions do not hold its arguments.

    An argument may be a private key, and the frames of a traceback hold their variables.
    """

    @wraps(function)
    def wrapper(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        try:
            return function(*args, **kwargs)
        except (TypeError, ValueError) as error:
            del args, kwargs
            error.__context__ = None
            raise error.with_traceback(None) from None

    return wrapper


class ECDSA:
    """A secp256k1 key pair.

    Without arguments, a new key pair is made. With *public_key* alone, the key pair can verify but
    not sign.
    A key may be raw bytes, or hexadecimal or base64 as text or bytes; hexadecimal may begin with
    ``#``.
    `public_key`, `private_key`, `sign_key` and `verify_key` may be assigned; assigning one changes
    the others to match.
    """

    #: Whether `get_public_key` gives the compressed public key.
    use_compression: int | bool = True
    _public: bytes
    _private: bytes | None
    _signer: _secp256k1.Signer | None

    @_without_frames
    def __init__(self, public_key: Key | None = None, private_key: Key | None = None) -> None:
        if public_key is None and private_key is None:
            secret = secrets.randbelow(_secp256k1.ORDER - 1) + 1
            private_key = secret.to_bytes(32, "big")
        self.private_key = private_key
        if public_key is not None:
            point = self.parse_public_key(public_key)
            if self._private is not None and point != self._public:
                raise ValueError("the public and the private key do not belong together")
            self._public = point

    @property
    def public_key(self) -> bytes:
        """The 64 bytes X and Y of the public key."""
        return self._public

    @public_key.setter
    def public_key(self, key: Key) -> None:
        point = self.parse_public_key(key)
        if point != self._public:
            self.private_key = None  # it belongs to the previous public key
        self._public = point

    @property
    def private_key(self) -> bytes | None:
        """The 32 bytes of the private key, or None."""
        return self._private

    @private_key.setter
    @_without_frames
    def private_key(self, key: Key | None) -> None:
        if key is None:
            self._private, self._signer = None, None
            return
        secret = self.parse_private_key(key)
        self._public = _secp256k1.public_key(secret)
        self._private, self._signer = secret, _secp256k1.signer(secret)

    @property
    def verify_key(self) -> ecdsa.VerifyingKey:
        """The public key as an object of python-ecdsa, made anew at each access."""
        return _secp256k1.verifying_key(self._public)

    @verify_key.setter
    def verify_key(self, key: ecdsa.VerifyingKey) -> None:
        self.public_key = _secp256k1.key_bytes(key, ecdsa.VerifyingKey)

    @property
    def sign_key(self) -> ecdsa.SigningKey | None:
        """The private key as an object of python-ecdsa, made anew at each access, or None."""
        return None if self._private is None else _secp256k1.signing_key(self._private)

    @sign_key.setter
    @_without_frames
    def sign_key(self, key: ecdsa.SigningKey | None) -> None:
        self.private_key = None if key is None else _secp256k1.key_bytes(key, ecdsa.SigningKey)

    @overload
    def get_public_key(self, f: _TextForm = "hex", public_key: Key | None = None) -> str: ...
    @overload
    def get_public_key(
        self, f: Literal["bin", "cpub", "hash"], public_key: Key | None = None
    ) -> bytes: ...
    @overload
    def get_public_key(self, f: str, public_key: Key | None = None) -> str | bytes: ...
    def get_public_key(self, f: str = "hex", public_key: Key | None = None) -> str | bytes:
        """Return the public key in the form *f*, compressed unless `use_compression` is off.

        *f* is "hex" (66 digits; 130 uncompressed), "bin" or "cpub" (33 bytes; 65 uncompressed),
        "base64" or "b64", or "hash" (RIPEMD-160 of SHA-256, 20 bytes).
        """
        point = self._public if public_key is None else self.parse_public_key(public_key)
        key = _compress(point) if self.use_compression else b"\x04" + point
        return _write(key, f, _PUBLIC_FORMS)

    @overload
    def get_private_key(self, f: _TextForm = "hex") -> str: ...
    @overload
    def get_private_key(self, f: Literal["bin"]) -> bytes: ...
    @overload
    def get_private_key(self, f: str) -> str | bytes: ...
    def get_private_key(self, f: str = "hex") -> str | bytes:
        """Return the private key in the form *f*: "hex", "bin", "base64" or "b64"."""
        if self._private is None:
            raise ValueError("this key pair has no private key")
        return _write(self._private, f, _PRIVATE_FORMS)

    @_without_frames
    def sign(self, msg: str | bytes, private_key: Key | None = None) -> str:
        """Return the signature of the SHA-256 of *msg* (text is UTF-8), as DER in hexadecimal."""
        sign = self._signer
        if private_key is not None:
            sign = _secp256k1.signer(self.parse_private_key(private_key))
        if sign is None:
            raise ValueError("this key pair has no private key, so it can verify but not sign")
        return sign(raw(msg, "the message")).hex()

    def valid_signature(
        self, signature: str | bytes, msg: str | bytes, public_key: Key | None = None
    ) -> bool:
        """Say whether *signature*, DER in hexadecimal, is a signature of *msg* by this key pair.

        With *public_key*, check the signature with that key instead.
        Return False also if an argument is not a signature, a message or a key at all.
        """
        try:
            point = self._public if public_key is None else self.parse_public_key(public_key)
            der = bytes.fromhex(text(signature, "the signature").strip().removeprefix("#"))
            return _secp256k1.verify(point, raw(msg, "the message"), der)
        except (TypeError, ValueError):
            return False

    @staticmethod
    def compress_public_key(k: Key) -> bytes:
        """Return the 33 bytes of the public key *k*."""
        return _compress(ECDSA.parse_public_key(k))

    @staticmethod
    def decompress_public_key(k: Key) -> bytes:
        """Return the 65 bytes of the public key *k*."""
        return b"\x04" + ECDSA.parse_public_key(k)

    @staticmethod
    def validate_public_key(k: Key) -> bool:
        """Say whether *k* is a point on the curve, in a form that `parse_public_key` reads."""
        try:
            ECDSA.parse_public_key(k)
        except (TypeError, ValueError):
            return False
        return True

    @staticmethod
    def parse_public_key(k: Key) -> bytes:
        """Return the 64 bytes X and Y of the public key *k*; ValueError if *k* is no public key.

        *k* is 33, 64 or 65 bytes, or their hexadecimal or base64 text.
        """
        try:
            return _secp256k1.point(_read(k, "the public key", _PUBLIC_SIZES))
        except ValueError as error:
            raise ValueError(f"not a public key; {_PUBLIC_EXPECTED}") from error

    @staticmethod
    @_without_frames
    def parse_private_key(k: Key) -> bytes:
        """Return the 32 bytes of the private key *k*; ValueError if *k* is no private key.

        The text of the exception does not show *k*.
        """
        try:
            return _secp256k1.check_secret(_read(k, "the private key", (32,)))
        except ValueError:
            raise ValueError(f"not a private key; {_PRIVATE_EXPECTED}") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ECDSA) and self._public == other._public

    def __hash__(self) -> int:
        return hash(self._public)

    def __copy__(self) -> ECDSA:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        slots = {slot for kind in type(self).__mro__ for slot in getattr(kind, "__slots__", ())}
        for slot in filter(partial(hasattr, self), slots):  # of a subclass
            setattr(twin, slot, getattr(self, slot))
        return twin

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self._public, self._private), {"use_compression": self.use_compression}

    def __repr__(self) -> str:
        return f"<ECDSA {_compress(self._public).hex()}>"


def _compress(point: bytes) -> bytes:
    return bytes([2 + point[63] % 2]) + point[:32]


def _base64(key: bytes) -> str:
    return base64.b64encode(key).decode("ascii")


def _hash160(key: bytes) -> bytes:
    return ripemd160(sha256(key).digest())


_Form = Callable[[bytes], str | bytes]
_PRIVATE_FORMS: dict[str, _Form] = {
    "hex": bytes.hex,
    "bin": bytes,
    "base64": _base64,
    "b64": _base64,
}
_PUBLIC_FORMS: dict[str, _Form] = {**_PRIVATE_FORMS, "cpub": bytes, "hash": _hash160}


def _write(key: bytes, f: str, forms: dict[str, _Form]) -> str | bytes:
    form = forms.get(text(f, "the form of a key"))
    if form is None:
        raise ValueError(f"{f!r} is no form of a key; expected one of {', '.join(sorted(forms))}")
    return form(key)


def _read(key: Key, what: str, sizes: tuple[int, ...]) -> bytes:
    """Return *key* itself if it is bytes of one of the *sizes*; else return it decoded."""
    data = raw(key, what)
    if isinstance(key, bytes) and len(data) in sizes:
        return data
    data = data.strip()
    if data.startswith(b"#"):
        return bytes.fromhex(data[1:].decode("ascii"))
    if len(data) % 2 == 0 and len(data) // 2 in sizes:
        return bytes.fromhex(data.decode("ascii"))
    return base64.b64decode(data, validate=True)
