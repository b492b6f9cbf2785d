//! File names: each is read in one way, the accepted ones come out as they went in, and ids have one total order.
#![no_main]

use keydir::{FileName, RevisionId};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|names: [&[u8]; 2]| {
    let ids = names.map(id_of);
    if let [Some(a), Some(b)] = &ids {
        assert_eq!(a.cmp(b), b.cmp(a).reverse());
        assert_eq!(a == b, a.cmp(b).is_eq());
    }
});

fn id_of(name: &[u8]) -> Option<RevisionId> {
    let _ = FileName::parse_flat(name);
    let (id, again) = match FileName::parse(name) {
        FileName::File { id, part, primary } => {
            let again = format!("{id}.{part}{}", if primary { ".primary" } else { "" });
            (id, again)
        }
        FileName::Marker { id } => {
            let again = format!("{id}.revoked");
            (id, again)
        }
        FileName::Hidden | FileName::Stray { .. } => return None,
    };
    // A marker may be marked, which means nothing.
    assert!(again.as_bytes() == name || format!("{again}.primary").as_bytes() == name);
    // Longer ones fit only beside short parts and markers.
    if id.as_str().len() <= 241 {
        assert_eq!(id.as_str().parse().as_ref(), Ok(&id));
    }
    Some(id)
}
