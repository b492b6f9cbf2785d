#!/usr/bin/env python3
"""A reference reader of the key directory convention (docs/convention.md), for the standard library of Python 3.9.

    python3 reader.py               runs every case of the JSON files beside it
    python3 reader.py --self-check  spoils some expectations and verifies that the run then reports failures

It is written to be read beside the convention, not to be fast or to be used: key arithmetic here is not in constant
time. Parts: 1 names; 2 DER, PEM and keys; 3 uses; 4 publications; 5 what a use makes of them; 6 layouts; 7 the cases.
"""
import base64
import binascii
import calendar
import concurrent.futures
import copy
import errno
import functools
import hashlib
import itertools
import json
import os
import pathlib
import random
import re
import shutil
import socket
import stat
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
CASE_START = calendar.timegm((2030, 1, 1, 0, 0, 0))
FILE_LIMIT = 1 << 20
TOTAL_LIMIT = 64 << 20
ENTRY_LIMIT = 100_000


# ---------------------------------------------------------------------------------------------------------------------
# 1. Names (section 1)

PARTS = ("key", "crt", "pem", "crl", "private", "public", "username", "password", "password-hash", "token",
         "token-sha256")
LABEL = re.compile(r"[A-Za-z0-9_-]+\Z")
PART = re.compile(r"[a-z0-9_-]{1,63}\Z")


def parse_name(name):
    """A dict as in names.json. Bytes that are no UTF-8 come as surrogates, as os.listdir gives them."""
    if name.startswith("."):
        return {"kind": "hidden"}
    size = len(name.encode("utf-8", "surrogateescape"))
    rest, primary = name, False
    if rest.endswith(".primary"):
        rest, primary = rest[:-len(".primary")], True
        size_unmarked = size - len(".primary")
    else:
        size_unmarked = size
    id, dot, part = rest.rpartition(".")
    if dot and good_id(id):
        if part == "revoked" and size <= 253:
            return {"kind": "marker", "id": id}
        if good_part(part) and size_unmarked <= 245:
            return {"kind": "file", "id": id, "part": part, "primary": primary}
    if re.search(r"\.revoked(\.primary)?\Z", name, re.IGNORECASE):
        return {"kind": "stray-marker"}
    return {"kind": "stray"}


def good_id(id):
    return all(LABEL.match(label) and label.lower() not in ("primary", "revoked") + PARTS for label in id.split("."))


def good_part(part):
    return bool(PART.match(part)) and part not in ("primary", "revoked")


def natural(id):
    """Key for sorting in natural order."""
    return [Run(run) for run in re.findall(r"[0-9]+|[^0-9]+", id)], id


class Run:
    """Two digit runs compare as numbers, all else by bytes."""

    def __init__(self, text):
        self.text = text

    def __eq__(self, other):
        return not self < other and not other < self

    def __lt__(self, other):
        if self.text[0].isdigit() and other.text[0].isdigit():
            return int(self.text) < int(other.text)
        return self.text < other.text


# ---------------------------------------------------------------------------------------------------------------------
# 2. DER, PEM, certificates and keys


class Bad(Exception):
    """Content that cannot be used, with the reason."""


class Der:
    """One DER element."""

    def __init__(self, tag, body, raw):
        self.tag, self.body, self.raw = tag, body, raw

    def children(self):
        if not self.tag & 0x20:
            raise Bad("not a constructed element")
        found, at = [], 0
        while at < len(self.body):
            child, at = Der.read(self.body, at)
            found.append(child)
        return found

    def integer(self):
        if self.tag != 0x02 or not self.body:
            raise Bad("not an integer")
        return int.from_bytes(self.body, "big", signed=True)

    def bits(self):
        if self.tag != 0x03 or not self.body or self.body[0] != 0:
            raise Bad("not a string of whole octets in bits")
        return self.body[1:]

    @staticmethod
    def read(data, at):
        if len(data) < at + 2:
            raise Bad("DER ends early")
        tag, length, begin = data[at], data[at + 1], at + 2
        if tag & 0x1F == 0x1F or length == 0x80:
            raise Bad("not DER")
        if length > 0x80:
            count = length & 0x7F
            if count > 4 or len(data) < begin + count:
                raise Bad("not DER")
            length = int.from_bytes(data[begin:begin + count], "big")
            if length < 0x80 or length >> (8 * (count - 1)) == 0:
                raise Bad("not DER: length not in its shortest form")
            begin += count
        if len(data) < begin + length:
            raise Bad("DER ends early")
        return Der(tag, data[begin:begin + length], data[at:begin + length]), begin + length

    @staticmethod
    def whole(data, tag=0x30):
        element, end = Der.read(data, 0)
        if end != len(data) or element.tag != tag:
            raise Bad("not one DER element of the kind expected")
        return element


def der_children(data):
    return Der.whole(data).children()


def expect_tags(elements, *tags):
    if len(elements) < len(tags) or any(e.tag != t for e, t in zip(elements, tags)):
        raise Bad("unexpected structure")


OID_EC, OID_RSA, OID_ED25519 = bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2a864886f70d010101"), b"\x2b\x65\x70"
OID_P256, OID_P384 = bytes.fromhex("2a8648ce3d030107"), b"\x2b\x81\x04\x00\x22"
OID_BASIC_CONSTRAINTS, OID_KEY_USAGE = b"\x55\x1d\x13", b"\x55\x1d\x0f"

# name: p, a, b, generator, order, octets of a coordinate
CURVES = {
    OID_P256: (2**256 - 2**224 + 2**192 + 2**96 - 1,
               0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
               (0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
                0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5),
               0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551, 32),
    OID_P384: (2**384 - 2**128 - 2**96 + 2**32 - 1,
               0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF,
               (0xAA87CA22BE8B05378EB1C71EF320AD746E1D3B628BA79B9859F741E082542A385502F25DBF55296C3A545E3872760AB7,
                0x3617DE4A96262C6F5D9E98BF9292DC29F8F41DBD289A147CE9DA3113B5F0B8C00A60B1CE1D7E819D7A431D7C90EA0E5F),
               0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973, 48),
}


def curve_add(p, one, two):
    """Sum of two points of y^2 = x^3 - 3x + b; None is the point at infinity."""
    if one is None or two is None:
        return two if one is None else one
    if one[0] == two[0]:
        if (one[1] + two[1]) % p == 0:
            return None
        slope = (3 * one[0] * one[0] - 3) * pow(2 * one[1], -1, p)
    else:
        slope = (two[1] - one[1]) * pow(two[0] - one[0], -1, p)
    x = (slope * slope - one[0] - two[0]) % p
    return x, (slope * (one[0] - x) - one[1]) % p


def ec_public(curve, secret):
    """The uncompressed point for a secret number."""
    p, _, point, order, size = CURVES[curve]
    if not 0 < secret < order:
        raise Bad("EC key out of range")
    result = None
    while secret:
        if secret & 1:
            result = curve_add(p, result, point)
        point = curve_add(p, point, point)
        secret >>= 1
    return b"\x04" + result[0].to_bytes(size, "big") + result[1].to_bytes(size, "big")


def check_point(curve, point):
    p, b, _, _, size = CURVES[curve]
    if len(point) != 1 + 2 * size or point[0] != 4:
        raise Bad("not an uncompressed point of the curve")
    x, y = int.from_bytes(point[1:1 + size], "big"), int.from_bytes(point[1 + size:], "big")
    if x >= p or y >= p or (y * y - (x * x * x - 3 * x + b)) % p:
        raise Bad("point not on the curve")


def ed25519_public(seed):
    """RFC 8032, section 5.1.5, in affine coordinates."""
    p = 2**255 - 19
    d = -121665 * pow(121666, -1, p) % p
    digest = bytearray(hashlib.sha512(seed).digest()[:32])
    digest[0] &= 248
    digest[31] = digest[31] & 127 | 64
    secret = int.from_bytes(digest, "little")
    point = (15112221349535400772501151409588531511454012693041857206046113283949847762202,
             46316835694926478169428394003475163141307993866256225615783033603165251855960)
    result = (0, 1)

    def add(one, two):
        product = d * one[0] * two[0] * one[1] * two[1]
        return ((one[0] * two[1] + two[0] * one[1]) * pow(1 + product, -1, p) % p,
                (one[1] * two[1] + one[0] * two[0]) * pow(1 - product, -1, p) % p)

    while secret:
        if secret & 1:
            result = add(result, point)
        point = add(point, point)
        secret >>= 1
    return (result[1] | (result[0] & 1) << 255).to_bytes(32, "little")


# Public keys are tuples that compare equal exactly if they are the same key.


def rsa_public(data):
    numbers = der_children(data)
    if len(numbers) != 2:
        raise Bad("not an RSA public key")
    return "RSA", numbers[0].integer(), numbers[1].integer()


def spki(data):
    fields = der_children(data)
    expect_tags(fields, 0x30, 0x03)
    if len(fields) != 2:
        raise Bad("not a SubjectPublicKeyInfo")
    algorithm = fields[0].children()
    expect_tags(algorithm, 0x06)
    oid, key = algorithm[0].body, fields[1].bits()
    if oid == OID_EC:
        expect_tags(algorithm, 0x06, 0x06)
        curve = algorithm[1].body
        if curve not in CURVES:
            raise Bad("a curve that this reader does not know")
        check_point(curve, key)
        return "EC", curve, key
    if oid == OID_RSA:
        return rsa_public(key)
    if oid == OID_ED25519 and len(key) == 32:
        return "Ed25519", key
    raise Bad("an algorithm that this reader does not know")


def sec1_private(data, curve=None):
    fields = der_children(data)
    expect_tags(fields, 0x02, 0x04)
    if fields[0].integer() != 1:
        raise Bad("not an EC private key")
    given = None
    for field in fields[2:]:
        if field.tag == 0xA0:
            curve = Der.whole(field.body, 0x06).body
        elif field.tag == 0xA1:
            given = Der.whole(field.body, 0x03).bits()
        else:
            raise Bad("not an EC private key")
    if curve not in CURVES:
        raise Bad("a curve that this reader does not know")
    public = ec_public(curve, int.from_bytes(fields[1].body, "big"))
    if given not in (None, public):
        raise Bad("the public half belongs to another key")
    return "EC", curve, public


def pkcs1_private(data):
    numbers = [field.integer() for field in der_children(data)]
    if len(numbers) != 9 or numbers[0] != 0 or numbers[4] * numbers[5] != numbers[1]:
        raise Bad("not an RSA private key")
    return "RSA", numbers[1], numbers[2]


def pkcs8_private(data):
    fields = der_children(data)
    expect_tags(fields, 0x02, 0x30, 0x04)
    if fields[0].integer() not in (0, 1) or any(field.tag not in (0xA0, 0x81) for field in fields[3:]):
        raise Bad("not PKCS#8")
    algorithm, key = fields[1].children(), fields[2].body
    expect_tags(algorithm, 0x06)
    oid = algorithm[0].body
    if oid == OID_EC:
        expect_tags(algorithm, 0x06, 0x06)
        return sec1_private(key, algorithm[1].body)
    if oid == OID_RSA:
        return pkcs1_private(key)
    if oid == OID_ED25519:
        seed = Der.whole(key, 0x04).body
        if len(seed) == 32:
            return "Ed25519", ed25519_public(seed)
    raise Bad("an algorithm that this reader does not know")


class Certificate:
    def __init__(self, der):
        self.der = der
        outer = der_children(der)
        expect_tags(outer, 0x30, 0x30, 0x03)
        fields = outer[0].children()
        self.version = 1
        if fields and fields[0].tag == 0xA0:
            self.version = Der.whole(fields.pop(0).body, 0x02).integer() + 1
        expect_tags(fields, 0x02, 0x30, 0x30, 0x30, 0x30, 0x30)
        if len(outer) != 3:
            raise Bad("not a certificate")
        self.issuer, self.subject = fields[2].raw, fields[4].raw
        self.begin, self.end = (parse_time(limit) for limit in fields[3].children())
        self.spki = fields[5].raw
        self.extensions = {}
        for field in fields[6:]:
            if field.tag == 0xA3:
                for extension in Der.whole(field.body).children():
                    parts = extension.children()
                    self.extensions[parts[0].body] = parts[-1].body

    def public_key(self):
        return spki(self.spki)

    def is_ca(self):
        """Version 3, basicConstraints CA:TRUE, keyCertSign where keyUsage is given."""
        constraints = self.extensions.get(OID_BASIC_CONSTRAINTS)
        if self.version != 3 or constraints is None:
            return False
        flags = der_children(constraints)
        if not flags or flags[0].tag != 0x01 or flags[0].body != b"\xff":
            return False
        usage = self.extensions.get(OID_KEY_USAGE)
        if usage is None:
            return True
        bits = Der.whole(usage, 0x03).body
        return len(bits) > 1 and bool(bits[1] & 0x04)  # keyCertSign is bit 5, counted from the left

    def begun(self, now):
        return self.begin <= now

    def ended(self, now):
        return self.end < now

    def runs(self, now):
        return self.begun(now) and not self.ended(now)


def parse_time(element):
    text = element.body.decode("ascii", "replace")
    if element.tag == 0x17:  # UTCTime: two digits of the year, 1950 to 2049
        text = ("19" if text[:2] >= "50" else "20") + text
    elif element.tag != 0x18:
        raise Bad("not a time")
    if not re.match(r"[0-9]{14}Z\Z", text):
        raise Bad("not a time")
    return calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ"))


def check_crl(der):
    outer = der_children(der)
    expect_tags(outer, 0x30, 0x30, 0x03)
    fields = outer[0].children()
    if fields and fields[0].tag == 0x02:
        fields.pop(0)
    expect_tags(fields, 0x30, 0x30)
    if len(fields) < 3:
        raise Bad("not a CRL")
    parse_time(fields[2])


def pem_blocks(data):
    """All (label, DER). Text outside the blocks is passed over; every BEGIN has its END."""
    blocks, label, lines = [], None, []
    for line in data.decode("latin-1").split("\n"):
        line = line.rstrip(" \t\r")
        begin = re.match(r"-----BEGIN ([^-]+)-----\Z", line)
        if begin:
            if label is not None:
                raise Bad("BEGIN inside a block")
            label, lines = begin.group(1), []
        elif "-----BEGIN" in line:
            raise Bad("BEGIN that is none")
        elif label is not None:
            if line == f"-----END {label}-----":
                try:
                    blocks.append((label, base64.b64decode("".join(lines), validate=True)))
                except binascii.Error:
                    raise Bad("not base64") from None
                label = None
            else:
                # A header of an encrypted block has a colon, and so fails as base64.
                lines.append(line.strip())
    if label is not None:
        raise Bad("BEGIN without END")
    return blocks


def certificates(data):
    blocks = pem_blocks(data)
    if not blocks or any(label != "CERTIFICATE" for label, _ in blocks):
        raise Bad("certificates expected, and nothing else")
    return [Certificate(der) for _, der in blocks]


PRIVATE_LABELS = {"PRIVATE KEY": pkcs8_private, "EC PRIVATE KEY": sec1_private, "RSA PRIVATE KEY": pkcs1_private}


def private_key(data):
    """The public key of the one private key in a PEM text."""
    blocks = pem_blocks(data)
    while blocks and blocks[0][0] == "EC PARAMETERS":
        blocks.pop(0)
    if len(blocks) != 1 or blocks[0][0] not in PRIVATE_LABELS:
        raise Bad("one private key without passphrase expected")
    return PRIVATE_LABELS[blocks[0][0]](blocks[0][1])


def public_key(data):
    blocks = pem_blocks(data)
    if len(blocks) != 1 or blocks[0][0] != "PUBLIC KEY":
        raise Bad("one public key expected")
    return spki(blocks[0][1])


def looks_like_der_key(data):
    """Whether bytes parse as a key or certificate in DER, of any algorithm."""
    try:
        fields = der_children(data)
    except Bad:
        return False
    tags = [field.tag for field in fields]
    try:
        if tags in ([0x30, 0x30, 0x03],):
            Certificate(data)
            return True
        if tags == [0x30, 0x03] or tags[:3] == [0x02, 0x30, 0x04]:  # SubjectPublicKeyInfo, PKCS#8
            return fields[tags.index(0x30)].children()[0].tag == 0x06
        if tags == [0x30, 0x04]:  # encrypted PKCS#8
            return fields[0].children()[0].tag == 0x06
        if tags[:2] == [0x02, 0x04]:  # SEC1
            return fields[0].integer() == 1
        return tags in ([0x02] * 2, [0x02] * 9)  # PKCS#1, public and private
    except (Bad, IndexError):
        return False


# ---------------------------------------------------------------------------------------------------------------------
# 3. Uses (section 5)


def text(data):
    """A text part without exactly one line end."""
    if data.endswith(b"\r\n"):
        data = data[:-2]
    elif data.endswith(b"\n"):
        data = data[:-1]
    if re.search(rb"[\0\r\n]", data):
        raise Bad("NUL or line end inside")
    return data


# Each function takes the id and the parts after the newline rule; it raises Bad, or returns the certificates on which
# the validity of the revision depends.


def use_symmetric(id, parts):
    key = parts["key"]
    if b"-----BEGIN" in key or looks_like_der_key(key):
        raise Bad("a key of another kind")
    return []


def use_signing(id, parts):
    # "usable if they also parse, together": a public half that is there belongs to the private one.
    public = private_key(parts["private"])
    if "public" in parts and public_key(parts["public"]) != public:
        raise Bad("public and private are of two keys")
    return []


def use_verifying(id, parts):
    known = [read(parts[part]) for part, read in (("public", public_key), ("private", private_key)) if part in parts]
    if any(key != known[0] for key in known):
        raise Bad("public and private are of two keys")
    return []


def use_identity(id, parts):
    chain = certificates(parts["crt"])
    if chain[0].public_key() != private_key(parts["key"]):
        raise Bad("the key is not that of the first certificate")
    if any(one.issuer != next_one.subject for one, next_one in zip(chain, chain[1:])):
        raise Bad("the chain is not in order")
    return chain[:1]


def use_anchors(id, parts):
    found = [c for part in ("crt", "pem") if part in parts for c in certificates(parts[part])]
    if not all(certificate.is_ca() for certificate in found):
        raise Bad("not-a-ca")
    if "crl" in parts:
        blocks = pem_blocks(parts["crl"])
        if not blocks or any(label != "X509 CRL" for label, _ in blocks):
            raise Bad("revocation lists expected, and nothing else")
        for _, der in blocks:
            check_crl(der)
    return found


def use_pinned(id, parts):
    if "crt" in parts and "pem" in parts:
        raise Bad("two pins")
    found = certificates(parts.get("crt", parts.get("pem")))
    if len(found) != 1:
        raise Bad("exactly one certificate expected")
    return found


def check_username(id, parts):
    name = parts.get("username", None if id == FLAT else id.encode())
    if name is None:
        raise Bad("no user name")
    if len(name) > 63:
        raise Bad("user name too long")


def use_password_login(id, parts):
    check_username(id, parts)
    return []


PARAMETER = r"[a-z0-9-]{1,32}=[A-Za-z0-9/+.-]*"
PHC = re.compile((r"\$[a-z0-9-]{1,32}(\$v=[0-9]+)?(\$%s(,%s)*)?(\$[A-Za-z0-9/+.-]+(\$[A-Za-z0-9/+]+)?)?\Z"
                  % (PARAMETER, PARAMETER)).encode())


def use_password_check(id, parts):
    if not PHC.match(parts["password-hash"]):
        raise Bad("not a PHC string")
    check_username(id, parts)
    return []


def use_token(id, parts):
    return []


def use_token_check(id, parts):
    digests = set()
    if "token-sha256" in parts:
        if not re.match(rb"[0-9A-Fa-f]{64}\Z", parts["token-sha256"]):
            raise Bad("not 64 hex digits")
        digests.add(parts["token-sha256"].decode().lower())
    if "token" in parts:
        digests.add(hashlib.sha256(parts["token"]).hexdigest())
    if len(digests) > 1:
        raise Bad("token and token-sha256 are of two tokens")
    return []


TEXT_PARTS = {"username", "password", "password-hash", "token", "token-sha256"}


class Use:
    """naming: groups, all needed, in each of which one part is enough. revoked: what becomes of a revoked primary."""

    def __init__(self, name, parse, naming, others=(), presents=False, accepts=False, revoked=None, excluded=()):
        self.name, self.parse, self.naming, self.presents, self.accepts = name, parse, naming, presents, accepts
        self.revoked, self.excluded = revoked, excluded
        self.naming_parts = [part for group in naming for part in group]
        self.parts = set(self.naming_parts) | set(others)


USES = {use.name: use for use in (
    Use("symmetric", use_symmetric, [["key"]], presents=True, accepts=True, revoked="stop",
        excluded=("crt", "pem", "private", "public")),
    Use("signing", use_signing, [["private"]], ["public"], presents=True, accepts=True, revoked="stop"),
    Use("verifying", use_verifying, [["public", "private"]], accepts=True),
    Use("tls-identity", use_identity, [["crt"], ["key"]], presents=True, revoked="keep"),
    Use("anchors", use_anchors, [["crt", "pem"]], ["crl"], accepts=True, excluded=("key", "private")),
    Use("pinned", use_pinned, [["crt", "pem"]], accepts=True),
    Use("password-login", use_password_login, [["password"]], ["username"], presents=True, revoked="keep"),
    Use("password-check", use_password_check, [["password-hash"]], ["username"], accepts=True),
    Use("certificate-login", use_identity, [["crt"], ["key"]], ["username"], presents=True, revoked="keep"),
    Use("token", use_token, [["token"]], presents=True, revoked="keep"),
    Use("token-check", use_token_check, [["token-sha256", "token"]], accepts=True),
)}
FLAT = "flat"


class Revision:
    """An id with usable content. `certificates` are those with a validity that counts here; they may be none."""

    def __init__(self, id, use, content, certificates):
        self.id, self.use, self.content, self.certificates = id, use, content, certificates

    def inside(self, now):
        return not self.certificates or any(certificate.runs(now) for certificate in self.certificates)

    def pending(self, now):
        return bool(self.certificates) and not any(certificate.begun(now) for certificate in self.certificates)

    def expired(self, now):
        return bool(self.certificates) and all(certificate.ended(now) for certificate in self.certificates)

    def may_replace(self, old, now):
        """Section 2: begun and, while the old's validity runs, not ended; for anchors one certificate that is both."""
        if not self.certificates:
            return True
        old_runs = old.inside(now)
        return any(c.begun(now) and not (old_runs and c.ended(now)) for c in self.certificates)

    def same_as(self, other):
        """Equal content in the sense of the report of duplicates."""
        if self.use.name == "anchors":
            return bool(self.ders() & other.ders())
        return self.content == other.content

    def ders(self):
        return {certificate.der for certificate in self.certificates}


def build(use, id, entries):
    """The revision from its entries ({part: [Entry]}), or Bad."""
    parts = {}
    for part in use.parts:
        regular = [entry for entry in entries.get(part, ()) if entry.regular()]
        if not regular:
            continue
        if len(regular) > 1:
            raise Bad("a part given twice")
        if regular[0].kind != "file":
            raise Bad(regular[0].kind)
        parts[part] = text(regular[0].data) if part in TEXT_PARTS else regular[0].data
        if not parts[part]:
            raise Bad("an empty part")
    depends_on = use.parse(id, parts)
    return Revision(id, use, {part: data for part, data in parts.items() if part != "crl"}, depends_on)


# ---------------------------------------------------------------------------------------------------------------------
# 4. A publication: what one complete reading of the directory gave


class Entry:
    """kind: file (with data); too-large, unreadable-file (regular too); not-regular; link (one that leads nowhere)."""

    def __init__(self, kind, data=b""):
        if kind == "file" and len(data) > FILE_LIMIT:
            kind, data = "too-large", b""
        self.kind, self.data = kind, data

    def regular(self):
        return self.kind in ("file", "too-large", "unreadable-file")


class Unreadable(Exception):
    pass


class Publication:
    def __init__(self, entries, uses, flat=False):
        self.ids = {}  # id: {part: [Entry]}
        self.marked, self.markers = set(), set()
        self.findings, self.publication = set(), None
        if len(entries) > ENTRY_LIMIT:
            raise Unreadable("too many entries")
        total, known_parts = 0, set().union(*(use.parts for use in uses))
        for name, entry in entries.items():
            parsed = parse_name(name)
            if flat and parsed["kind"] in ("file", "marker", "stray"):
                parsed = {"kind": "stray"}
                if good_part(name):
                    parsed = {"kind": "file", "id": FLAT, "part": name, "primary": True}
                elif re.search(r"\.revoked(\.primary)?\Z", name, re.IGNORECASE):
                    parsed = {"kind": "stray-marker"}
            kind = parsed["kind"]
            if name == ".rotation.json" and entry.kind == "file":
                total += len(entry.data)
                self.publication = publication_id(entry.data)
            if kind in ("stray", "stray-marker"):
                self.findings.add((kind, name))
            if kind == "marker":
                self.markers.add(parsed["id"])
            if kind == "file":
                self.ids.setdefault(parsed["id"], {}).setdefault(parsed["part"], []).append(entry)
                if parsed["primary"] and entry.regular():
                    self.marked.add(parsed["id"])
                if parsed["part"] not in known_parts:
                    self.findings.add(("unknown-part", name))
                else:
                    total += len(entry.data)
            if kind in ("file", "marker") and entry.kind != "file":
                self.findings.add((entry.kind, name))
        if flat:
            self.marked.add(FLAT)
        if total > TOTAL_LIMIT:
            raise Unreadable("too many bytes")
        folded = {}
        for id in set(self.ids) | self.markers:
            folded.setdefault(id.lower(), []).append(id)
        for group in folded.values():
            if len(group) > 1:
                self.findings |= {("case-clash", id) for id in group}


def publication_id(data):
    try:
        state = json.loads(data.decode("utf-8"))
    except ValueError:
        return None
    found = state.get("publication") if isinstance(state, dict) else None
    return found if isinstance(found, str) else None


# ---------------------------------------------------------------------------------------------------------------------
# 5. What a use makes of publications (sections 2 and 3)


class UseReader:
    def __init__(self, use):
        self.use = use
        self.start_afresh()

    def start_afresh(self):
        self.started = False
        self.active = {}      # id: Revision in force, held ones included
        self.held = {}        # id: a, b, c or replacement
        self.revoked = set()  # ids revoked since the start and not come back
        self.graves = {}      # id: what a revoked one contained
        self.last = None      # the last good primary: the Revision as last presented
        self.mark_seen = False
        self.candidates, self.set_aside, self.copies, self.blocked = set(), set(), {}, {}
        self.publication = None

    def step(self, now, publication):
        """publication is None while the directory is unreadable. Returns what the cases compare."""
        self.report = {"revoked": set(), "returned": set(), "reused": set(), "superseded": set()}
        self.lost = set()  # certificates of revoked anchors
        if publication is None:
            self.held = {id: "a" for id in self.active}  # rule 4(a)
            error = None if self.started else "unreadable"
        else:
            self.publication = publication
            self.load(now)
            error = None
        present, kept, reason, about_primary = self.choose(now) if self.use.presents else (None, False, None, set())
        accept = self.accepted(now)
        if not self.started and error is None:
            if self.use.presents and present is None:
                error = "nothing-to-present"
            elif self.use.accepts and not accept:
                error = "nothing-to-accept"
        result = {
            "error": error, "present": present, "kept": kept, "no-primary": reason, "accept": accept,
            "content": {id: self.shown(revision) for id, revision in self.active.items()},
            "held": dict(self.held), "findings": sorted(about_primary | self.findings(now)),
            "revoked": sorted(self.report["revoked"]), "returned": sorted(self.report["returned"]),
            "reused": sorted(self.report["reused"]),
            "superseded": sorted(self.report["superseded"]) if self.use.presents else None,
            "publication": self.publication.publication if self.publication else None,
            "adopted": error is None and publication is not None and not self.held and not self.set_aside,
        }
        if self.use.name == "anchors":
            in_force = {c.der for r in self.active.values() for c in r.certificates if c.runs(now)}
            still = set().union(*(r.ders() for r in self.active.values()))
            result["anchors"] = sorted(map(fixture_name, in_force))
            result["revoked-anchors"] = sorted(map(fixture_name, self.lost - still))
        if error is not None:
            result.update({"present": None, "accept": [], "content": {}, "held": {}})
            self.start_afresh()
        else:
            self.started = True
        return result

    # Sections 2 and 3.3, 3.4: which revisions are in force.

    def load(self, now):
        use, publication = self.use, self.publication
        before = set(self.active)
        would_be, fresh, named = set(), {}, set()
        for id, entries in publication.ids.items():
            if any(part in entries for part in use.naming_parts):
                named.add(id)
            complete = all(any(e.regular() for part in group for e in entries.get(part, ())) for group in use.naming)
            if complete and not any(part in entries for part in use.excluded):
                would_be.add(id)
                try:
                    fresh[id] = build(use, id, entries)
                except Bad:
                    pass
        self.held, self.blocked = {}, {}
        self.candidates = would_be - publication.markers

        for id in publication.markers:
            if id in self.active:
                self.revoke(id)
            self.revoked.add(id)

        self.set_aside = set()
        for id in self.candidates:
            old, new = self.active.get(id), fresh.get(id)
            if new is None:
                if old is None:
                    self.set_aside.add(id)
                else:
                    self.held[id] = "b"
            elif old is None:
                self.active[id] = new
                if id in self.revoked:
                    self.revoked.discard(id)
                    self.graves.pop(id, None)
                    self.report["returned"].add(id)
            elif old.content != new.content:
                self.replace(id, old, new, now)

        absent = set()
        for id in set(self.active) - self.candidates:
            if id in named:
                self.held[id] = "b"
            else:
                absent.add(id)
        # Rules 3 and 4(c): a revision counts only inside its validity.
        if any(self.active[id].inside(now) for id in set(self.active) - absent):
            for id in absent:
                self.revoke(id)
                self.revoked.add(id)
        else:
            for id in absent:
                if use.name == "anchors" and not self.active[id].inside(now):
                    del self.active[id]  # an anchor outside its validity is left out, never held
                else:
                    self.held[id] = "c"

        eligible = would_be | set(self.active) | before & publication.markers
        self.mark_seen = self.mark_seen or bool(publication.marked & eligible)
        self.candidates |= set(self.active)
        # For the report of duplicates: what lives, and what a marker or an absence keeps from living.
        self.copies = {id: fresh[id] for id in publication.markers & set(fresh)}

    def revoke(self, id):
        gone = self.active.pop(id)
        self.graves[id] = gone
        self.lost |= gone.ders()
        self.report["revoked"].add(id)

    def replace(self, id, old, new, now):
        if not new.may_replace(old, now):
            self.held[id] = "replacement"
            self.blocked[id] = new
            return
        self.active[id] = new
        self.report["reused"].add(id)
        self.report["superseded"].add(id)
        self.lost |= old.ders() - new.ders()

    def accepted(self, now):
        # An anchor or a pin accepts nothing outside its validity.
        by_time = self.use.name in ("anchors", "pinned")
        ids = [id for id, revision in self.active.items() if not by_time or revision.inside(now)]
        return sorted(ids, key=natural)

    def shown(self, revision):
        return next(revision.content[part] for part in self.use.naming_parts if part in revision.content)

    # Sections 2, 3.5 and 3.6: what is presented.

    def choose(self, now):
        """(id presented, kept, reason, findings)"""
        marked = sorted(self.candidates & self.publication.marked, key=natural) if self.publication else []
        primary, reason = None, None
        if len(marked) == 1:
            primary = marked[0]
        elif marked:
            reason = "ambiguous"
        elif not self.candidates:
            reason = "missing"
        elif len(self.candidates) == 1 and not self.mark_seen:
            primary = next(iter(self.candidates))
        else:
            reason = "unmarked"
        findings = {(reason, self.use.name)} if reason else set()

        if primary is not None:
            revision = self.active.get(primary)
            if revision is None:
                reason = "unusable"
            elif revision.pending(now):
                reason = "pending"
            else:
                other = self.active.get(self.last.id) if self.last else None
                if revision.expired(now) and other and other.id != primary and other.inside(now):
                    reason = "expired"
                else:
                    self.last = revision
                    return primary, False, None, findings

        if self.last is None:
            if reason == "ambiguous":  # rule 6
                for id in marked:
                    if id in self.active and not self.active[id].pending(now):
                        self.last = self.active[id]
                        return id, False, reason, findings
            return None, False, reason, findings
        in_force = self.active.get(self.last.id)
        if in_force and not in_force.pending(now):
            self.last = in_force  # an id: if its content was replaced, the new content
            return self.last.id, False, reason, findings
        if self.use.revoked == "keep":
            return self.last.id, True, reason, findings
        return None, False, "revoked", findings

    def findings(self, now):
        found = {("unusable", id) for id in self.set_aside}
        found |= {("unusable", id) for id, rule in self.held.items() if rule == "b"}
        for code in ("returned", "reused"):
            found |= {({"reused": "reused-id"}.get(code, code), id) for id in self.report[code]}
        if self.use.name != "anchors":
            for revision in list(self.active.values()) + list(self.blocked.values()):
                if revision.pending(now):
                    found.add(("pending", revision.id))
                if revision.expired(now):
                    found.add(("expired", revision.id))
        for one, two in itertools.combinations(self.active.values(), 2):
            if one.same_as(two):
                found |= {("duplicate", one.id), ("duplicate", two.id)}
        dead = list(self.copies.values()) + [grave for id, grave in self.graves.items() if id in self.revoked]
        for living, gone in itertools.product(self.active.values(), dead):
            if living.id != gone.id and living.same_as(gone):
                found.add(("duplicate-revoked", living.id))
        return found


class Reader:
    """Several uses of one directory."""

    def __init__(self, uses):
        self.uses = [UseReader(USES[name]) for name in uses]

    def step(self, now, publication):
        results = {reader.use.name: reader.step(now, publication) for reader in self.uses}
        found = publication.findings if publication else set()
        if len(results) == 1:
            result = next(iter(results.values()))
            result["findings"] = sorted(set(map(tuple, result["findings"])) | found)
            return result
        results["directory"] = {
            "findings": sorted(found),
            "publication": next(iter(results.values()))["publication"],
            "adopted": all(result["adopted"] for result in results.values()),
        }
        return results


# ---------------------------------------------------------------------------------------------------------------------
# 6. Layouts (section 6)


def resolve(base, name):
    """Follows a name inside base hop by hop: (kind, path); kind is file, directory, other or link (leads nowhere)."""
    todo, at, hops = [name], [], 0
    while todo:
        component = todo.pop(0)
        if component in ("", "."):
            continue
        if component == "..":
            if not at:
                return "link", None  # leaves
            at.pop()
            continue
        path = os.path.join(base, *at, component)
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            return "link", None  # dangles
        if stat.S_ISLNK(mode):
            hops += 1
            target = os.readlink(path)
            if hops > 40 or target.startswith("/"):
                return "link", None  # loops, leaves
            todo = target.split("/") + todo
            continue
        if todo and not stat.S_ISDIR(mode):
            return "link", None
        at.append(component)
    path = os.path.join(base, *at)
    mode = os.lstat(path).st_mode
    return "file" if stat.S_ISREG(mode) else "directory" if stat.S_ISDIR(mode) else "other", path


def read_entry(base, name, wanted):
    kind, path = resolve(base, name)
    if kind == "link":
        return Entry("link")
    if kind != "file":
        return Entry("not-regular")
    if not wanted:
        return Entry("file")
    try:
        # Whatever took the place of the file meanwhile is neither followed nor waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return Entry("unreadable-file")
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return Entry("not-regular")
        try:
            return Entry("file", file.read(FILE_LIMIT + 1))
        except OSError:
            return Entry("unreadable-file")


def read_entries(base, uses, flat):
    known = set().union(*(use.parts for use in uses))
    entries = {}
    for name in names_in(base):
        if name.startswith(".") and name != ".rotation.json":
            continue
        parsed = parse_name(name)
        wanted = name == ".rotation.json" or (name in known if flat else parsed.get("part") in known)
        entries[name] = read_entry(base, name, wanted)
    return entries


def names_in(base):
    names = os.listdir(base)
    if len(names) > ENTRY_LIMIT:
        raise Unreadable("too many entries")
    return names


def listing(base):
    """What has to be equal before and after a reading of a plain directory."""
    found = {}
    for name in names_in(base):
        if name.startswith(".") and name != ".rotation.json":
            continue  # no part of the set
        path = os.path.join(base, name)
        found[name] = []
        for look in (os.lstat, os.stat):
            try:
                info = look(path)
                found[name].append((info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns))
            except OSError:
                found[name].append(None)
    return found


def data_link(root):
    path = os.path.join(root, "..data")
    info = os.lstat(path)
    if not stat.S_ISLNK(info.st_mode):
        raise Unreadable("..data is no link")
    return os.readlink(path), info.st_dev, info.st_ino, info.st_ctime_ns


def read_directory(path, uses, flat=False, attempts=5):
    """One publication, or Unreadable."""
    for _ in range(attempts):
        try:
            root = os.path.realpath(path)
            if not os.path.isdir(root):
                raise Unreadable("no directory")
            if os.path.lexists(os.path.join(root, "..data")):
                before = data_link(root)
                kind, inside = resolve(root, "..data")
                if kind != "directory":
                    raise Unreadable("..data leads to no directory inside")
                entries, after = read_entries(inside, uses, flat), data_link(root)
            else:
                before = listing(root)
                time.sleep(0.1)
                entries, after = read_entries(root, uses, flat), listing(root)
        except OSError as error:
            raise Unreadable(os.strerror(error.errno or errno.EIO)) from None
        if before == after:
            return Publication(entries, uses, flat)
    raise Unreadable("never at rest")


# ---------------------------------------------------------------------------------------------------------------------
# 7. The cases


def fixture(name):
    return (HERE / "fixtures" / name).read_bytes()


@functools.lru_cache(maxsize=None)
def fixture_names():
    return {certificates(path.read_bytes())[0].der: path.name for path in sorted((HERE / "fixtures").glob("*.crt"))}


def fixture_name(der):
    return fixture_names()[der]


def content(value):
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, list):
        return b"".join(map(content, value))
    if "base64" in value:
        return base64.b64decode(value["base64"])
    if "fixture" in value:
        return fixture(value["fixture"])
    return value["repeat"].encode() * value["times"]


def entry(value):
    if isinstance(value, dict):
        if "link" in value:
            return Entry("link")
        if "fifo" in value or "directory" in value:
            return Entry("not-regular")
        if "unreadable-file" in value:
            return Entry("unreadable-file")
    return Entry("file", content(value))


def compare(expected, actual, where=""):
    """Failures as text."""
    failures = []
    for key, value in expected.items():
        if key not in actual:
            failures.append(f"{where}{key}: nothing of that name is compared")
            continue
        seen = actual[key]
        if key == "content":
            for id, wanted in value.items():
                if seen.get(id) != content(wanted):
                    failures.append(f"{where}content of {id}: expected {content(wanted)[:60]!r}, "
                                    f"found {(seen.get(id) or b'nothing')[:60]!r}")
            continue
        if key in ("findings",):
            seen = [list(pair) for pair in seen]
        if seen != value:
            failures.append(f"{where}{key}: expected {json.dumps(value)}, found {json.dumps(seen)}")
    return failures


def compare_step(case, expected, actual):
    if "uses" not in case:
        return compare(expected, actual)
    return [f for name, part in expected.items() for f in compare(part, actual[name], f"{name}: ")]


def run_name(case):
    name = case["name"]
    if isinstance(name, dict):
        name = base64.b64decode(name["base64"]).decode("utf-8", "surrogateescape")
    found = parse_name(name)
    return [] if found == case["expect"] else [f"expected {case['expect']}, found {found}"]


def run_order(case):
    wanted = case["sorted"]
    orders = [list(reversed(wanted))]
    shuffle = random.Random(1)
    for _ in range(20):
        orders.append(shuffle.sample(wanted, len(wanted)))
    found = [order for order in (sorted(order, key=natural) for order in orders) if order != wanted]
    return [f"sorted as {found[0]}"] if found else []


def uses_of(case):
    return case.get("uses") or [case["use"]]


def run_sequence(case):
    reader, failures = Reader(uses_of(case)), []
    uses, last, before = [USES[name] for name in uses_of(case)], None, 0
    for number, step in enumerate(case["steps"], 1):
        if step["at"] < before:
            failures.append(f"step {number}: goes back in time")
        before = step["at"]
        if step.get("unreadable"):
            last = None
        elif "files" in step:
            try:
                last = Publication({name: entry(value) for name, value in step["files"].items()}, uses)
            except Unreadable:
                last = None
        actual = reader.step(CASE_START + step["at"], last)
        failures += [f"step {number}: {f}" for f in compare_step(case, step["expect"], actual)]
    return failures


def make_tree(path, tree):
    path.mkdir(parents=True, exist_ok=True)
    for name, value in tree.items():
        target = path / name
        if isinstance(value, dict) and "dir" in value:
            make_tree(target, value["dir"])
        elif isinstance(value, dict) and "link" in value:
            target.symlink_to(value["link"])
        elif isinstance(value, dict) and "many" in value:
            for number in range(1, value["many"] + 1):
                # Hard links to one file are made much faster than so many files; a file may have some 60,000 of them.
                if number % 50_000 == 1:
                    first = f"{target}{number}"
                    os.mknod(first)
                else:
                    os.link(first, f"{target}{number}")
        elif isinstance(value, dict) and "fifo" in value:
            os.mkfifo(target)
        elif isinstance(value, dict) and "socket" in value:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(target))
            listener.close()
        else:
            target.write_bytes(content(value))


def run_layout(case):
    reader, failures = Reader(uses_of(case)), []
    uses = [USES[name] for name in uses_of(case)]
    top = pathlib.Path(tempfile.mkdtemp(prefix="kd"))  # short: the names of sockets have a limit
    try:
        for number, step in enumerate(case["steps"], 1):
            root = top / "root"
            if "tree" in step:
                if root.exists():
                    shutil.rmtree(root)
                make_tree(root, step["tree"])
            try:
                publication = read_directory(root / case.get("path", "."), uses, case.get("flat", False))
            except Unreadable:
                publication = None
            actual = reader.step(CASE_START, publication)
            failures += [f"step {number}: {f}" for f in compare_step(case, step["expect"], actual)]
    finally:
        shutil.rmtree(top)
    return failures


def runner(file):
    for beginning, run in (("names", run_name), ("order", run_order), ("sequences", run_sequence),
                           ("layouts", run_layout)):
        if file.startswith(beginning):
            return run
    raise SystemExit(f"{file}: what kind of cases is this?")


def load_cases():
    return [(path.name, case) for path in sorted(HERE.glob("*.json")) for case in json.loads(path.read_text())["cases"]]


def run_all(cases, quiet=False):
    def one(item):
        file, case = item
        try:
            return runner(file)(case)
        except Exception as error:  # a case that breaks the reader is a failure like others
            return [f"{type(error).__name__}: {error}"]

    # Most of the time goes by in the waits of the plain layout, so these are shared.
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        results = list(pool.map(one, cases))
    failed = 0
    for (file, case), failures in zip(cases, results):
        if failures:
            failed += 1
            if not quiet:
                print(f"FAILED {file}: {case['name']!r} (section {case['section']})")
                for failure in failures:
                    print(f"    {failure}")
    return len(cases) - failed, failed


def self_check(cases, each=20):
    """Spoils one expectation in some cases of each file; every spoilt case has to fail."""
    chance = random.Random(7)
    by_file = {}
    for file, case in cases:
        if '"many"' not in json.dumps(case):  # these take long
            by_file.setdefault(file, []).append(case)
    spoilt, missed = 0, 0
    for file, of_file in by_file.items():
        for case in chance.sample(of_file, min(each, len(of_file))):
            case = copy.deepcopy(case)
            what = spoil(case, chance)
            spoilt += 1
            if run_all([(file, case)], quiet=True) != (0, 1):
                missed += 1
                print(f"NOT NOTICED {file}: {case['name']!r}, spoilt: {what}")
    print(f"self-check: {spoilt} expectations spoilt, {missed} not noticed")
    return missed == 0


def spoil(case, chance):
    if "sorted" in case:
        case["sorted"][:2] = case["sorted"][1::-1]
        return "order"
    expected = case.get("expect") or chance.choice([s["expect"] for s in case["steps"] if s["expect"]])
    if "uses" in case:
        expected = expected[chance.choice(list(expected))]
    what = chance.choice(list(expected))
    value = expected[what]
    if what == "content":
        value[chance.choice(list(value))] = "no such content"
    elif isinstance(value, list):
        expected[what] = value[:-1] if value else ["r0"]
    elif isinstance(value, bool):
        expected[what] = not value
    elif isinstance(value, dict):
        expected[what] = {} if value else {"r0": "b"}
    else:
        expected[what] = "something else" if value is None else None
    return what


def main():
    cases = load_cases()
    if sys.argv[1:] == ["--self-check"]:
        return 0 if self_check(cases) else 1
    passed, failed = run_all(cases)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
