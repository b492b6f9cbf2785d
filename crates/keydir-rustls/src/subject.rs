//! The subject of a certificate as a string, in the style of RFC 4514.

use std::fmt::Write;

use x509_parser::asn1_rs::{Any, Tag, ToDer};
use x509_parser::der_parser::oid::Oid;
use x509_parser::oid_registry::asn1_rs::oid;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

/// The subject of a certificate in DER, such as `CN=client,O=Example`; `None` if it cannot be parsed.
pub(crate) fn of_certificate(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(name(certificate.subject()))
}

/// The issuer of a certificate in DER, likewise.
pub(crate) fn issuer_of_certificate(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(name(certificate.issuer()))
}

/// A name in DER.
pub(crate) fn of_name(der: &[u8]) -> Option<String> {
    let (_, parsed) = X509Name::from_der(der).ok()?;
    Some(name(&parsed))
}

/// The last part of the name comes first, as RFC 4514 has it.
fn name(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter_rdn().collect();
    let mut text = String::new();
    for (number, part) in parts.into_iter().rev().enumerate() {
        if number > 0 {
            text.push(',');
        }
        for (number, attribute) in part.iter().enumerate() {
            if number > 0 {
                text.push('+');
            }
            push_attribute(&mut text, attribute.attr_type(), attribute.attr_value());
        }
    }
    text
}

fn push_attribute(text: &mut String, kind: &Oid<'_>, value: &Any<'_>) {
    match (short_name(kind), string(value)) {
        (Some(kind), Some(value)) => {
            text.push_str(kind);
            text.push('=');
            push_escaped(text, value);
        }
        // Of a type without a short name the value is the DER in hex: only that is exact.
        (kind_name, _) => {
            match kind_name {
                Some(name) => text.push_str(name),
                None => text.push_str(&kind.to_id_string()),
            }
            text.push_str("=#");
            // It was read from its DER, so that it can be written.
            for byte in value.to_der_vec().unwrap_or_default() {
                // Writing to a String does not fail.
                let _ = write!(text, "{byte:02X}");
            }
        }
    }
}

fn short_name(kind: &Oid<'_>) -> Option<&'static str> {
    let names = [
        (oid!(2.5.4.3), "CN"),
        (oid!(2.5.4.7), "L"),
        (oid!(2.5.4.8), "ST"),
        (oid!(2.5.4.10), "O"),
        (oid!(2.5.4.11), "OU"),
        (oid!(2.5.4.6), "C"),
        (oid!(2.5.4.9), "STREET"),
        (oid!(0.9.2342.19200300.100.1.25), "DC"),
        (oid!(0.9.2342.19200300.100.1.1), "UID"),
    ];
    names.into_iter().find(|(oid, _)| oid == kind).map(|(_, name)| name)
}

fn string<'a>(value: &'a Any<'_>) -> Option<&'a str> {
    match value.header.tag() {
        _ if !value.header.is_universal() => None,
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String => std::str::from_utf8(value.data).ok(),
        _ => None,
    }
}

/// Control characters are escaped too: the text goes into logs and JSON.
fn push_escaped(text: &mut String, value: &str) {
    let last = value.chars().count().saturating_sub(1);
    for (at, c) in value.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', c]),
            '#' if at == 0 => text.push_str("\\#"),
            ' ' if at == 0 || at == last => text.push_str("\\ "),
            c if c.is_control() => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(text, "\\{byte:02X}");
                }
            }
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    fn subject(attributes: &[(DnType, &str)]) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in attributes {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        of_certificate(certificate.der()).unwrap()
    }

    #[test]
    fn the_last_part_comes_first_and_nothing_is_ambiguous() {
        let cases: &[(&[(DnType, &str)], &str)] = &[
            (&[(DnType::CommonName, "client")], "CN=client"),
            (
                &[
                    (DnType::CountryName, "DE"),
                    (DnType::OrganizationName, "Acme, Inc."),
                    (DnType::CommonName, "client"),
                ],
                "CN=client,O=Acme\\, Inc.,C=DE",
            ),
            (&[(DnType::CommonName, "#a+b ")], "CN=\\#a\\+b\\ "),
            (&[(DnType::CommonName, " ")], "CN=\\ "),
            (&[(DnType::CommonName, "a\nb\"")], "CN=a\\0Ab\\\""),
            (&[(DnType::CommonName, "M\u{fc}ller")], "CN=M\u{fc}ller"),
            (&[(DnType::CustomDnType(vec![2, 5, 4, 42]), "J")], "2.5.4.42=#0C014A"),
            (&[], ""),
        ];
        for (attributes, expected) in cases {
            assert_eq!(subject(attributes), *expected);
        }
        assert_eq!(of_certificate(b"no certificate"), None);
    }

    /// A name of one common name.
    fn common_name(value: &[u8]) -> Option<String> {
        let around = |tag: u8, inside: &[u8]| [&[tag, u8::try_from(inside.len()).unwrap()], inside].concat();
        let attribute = around(0x30, &[&[6, 3, 0x55, 4, 3], value].concat());
        of_name(&around(0x30, &around(0x31, &attribute)))
    }

    #[test]
    fn what_only_resembles_a_string_is_none() {
        for (value, expected) in [
            (&[0x0c, 1, b'a'][..], "CN=a"),
            // The same tag of the context, a sequence, another kind of string.
            (&[0x8c, 1, b'a'], "CN=#8C0161"),
            (&[0x30, 3, 0x0c, 1, b'a'], "CN=#30030C0161"),
            (&[0x14, 1, b'a'], "CN=#140161"),
        ] {
            assert_eq!(common_name(value).as_deref(), Some(expected));
        }
    }
}
