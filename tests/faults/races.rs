//! Which requests race, and over what.

use marina_distribution::oci::Algorithm::Sha256;

use crate::{
    operation::{
        BIG,
        Doc::{Image, Index, Other, Signature},
        Op::{self, *},
        SMALL,
        Session::Big,
    },
    scenes::CONTENT,
};

/// Each of these requests races each of them, itself included.
#[derive(Clone, Debug)]
pub(crate) struct Ring {
    pub(crate) before: Vec<Op>,
    pub(crate) ops: Vec<Op>,
}

pub(crate) fn blobs() -> Vec<Ring> {
    let mut rings = Vec::new();
    for blob in [SMALL, BIG] {
        let (this, gone) = (Whole("a", blob), DeleteBlob("a", blob));
        let ops = [
            this.clone(),
            Whole("b", blob),
            gone.clone(),
            DeleteBlob("b", blob),
            Mount("b", blob, Some("a")),
            Mount("b", blob, None),
            Read("a", blob),
            Expire,
        ];
        for before in [vec![], vec![this.clone()], vec![this.clone(), Whole("b", blob)], vec![this, gone]] {
            rings.push(Ring { before, ops: ops.to_vec() });
        }
    }
    rings
}

pub(crate) fn sessions() -> Vec<Ring> {
    let mut rings = Vec::new();
    for at in [0, 3, 13] {
        let before = if at == 0 { vec![] } else { vec![Append(Big, 0..at)] };
        let ops = [
            Append(Big, at..at + 1),
            Append(Big, at..at + 9),
            Torn(Big, at..at + 8),
            Finish(Big, at..23, Sha256),
            FinishWrong(Big, at..23, Sha256),
            Cancel(Big),
            Status(Big),
            Expire,
        ];
        rings.push(Ring { before, ops: ops.to_vec() });
    }
    for before in [vec![Append(Big, 0..23)], vec![Torn(Big, 0..23), Append(Big, 0..23)]] {
        let ops = vec![Finish(Big, 23..23, Sha256), Cancel(Big), Status(Big), Whole("a", BIG), Expire];
        rings.push(Ring { before, ops });
    }
    rings
}

pub(crate) fn manifests() -> Vec<Ring> {
    let ops = [
        Push(Image, "t"),
        PushByDigest(Image, &["t", "u"]),
        Push(Other, "t"),
        PushIf(Other, "t", Some(Image)),
        PushIf(Other, "t", None),
        Push(Signature, "v"),
        Push(Index, "v"),
        DeleteTag("t"),
        DeleteManifest(Image),
        DeleteManifest(Other),
        DeleteManifest(Signature),
        DeleteBlob("a", SMALL),
        GetTag("t"),
        Expire,
    ];
    let image = Push(Image, "t");
    let befores = [
        vec![],
        vec![image.clone()],
        vec![image.clone(), Push(Signature, "v")],
        vec![image, DeleteManifest(Image), Push(Other, "t")],
    ];
    let ring = |before: Vec<Op>| Ring { before: [&CONTENT[..], &before].concat(), ops: ops.to_vec() };
    befores.into_iter().map(ring).collect()
}
