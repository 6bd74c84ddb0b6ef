//! What a manifest says of other things.

use super::*;

// TYPE-8
#[test]
fn a_descriptor_has_a_type_a_digest_and_a_size() {
    for (field, bad) in [
        ("digest", json!("sha256:abc")),
        ("digest", json!(digest(1).to_uppercase())),
        ("digest", json!("")),
        ("digest", json!(5)),
        ("digest", json!("md5:/../x")),
        ("size", json!(-1)),
        ("size", json!(1.5)),
        ("size", json!("1")),
        ("size", json!(null)),
        ("size", json!(9_223_372_036_854_775_808_u64)),
        ("mediaType", json!(1)),
        ("mediaType", json!(null)),
        ("annotations", json!("x")),
        ("urls", json!("x")),
        ("data", json!(1)),
    ] {
        let layers = [descriptor(LAYER, 2), with(descriptor(LAYER, 3), json!({field: bad}))];
        let text = complaint(IMAGE, &with(image(), json!({"layers": layers})));
        assert!(text.starts_with(&format!("layers[1].{field}: ")), "{text}");
    }
    for field in ["mediaType", "digest", "size"] {
        for (place, manifest) in [
            ("config", with(image(), json!({"config": without(descriptor(CONFIG, 1), field)}))),
            ("layers[0]", with(image(), json!({"layers": [without(descriptor(LAYER, 1), field)]}))),
            ("subject", with(image(), json!({"subject": without(descriptor(IMAGE, 1), field)}))),
        ] {
            let text = complaint(IMAGE, &manifest);
            assert!(text.starts_with(&format!("{place}: missing field `{field}`")), "{text}");
        }
        let text = complaint(INDEX, &with(index(), json!({"manifests": [without(descriptor(IMAGE, 1), field)]})));
        assert!(text.starts_with(&format!("manifests[0]: missing field `{field}`")), "{text}");
    }
}

// TYPE-8
#[test]
fn an_array_of_the_fields_in_order_is_no_object() {
    let array = json!([LAYER, digest(1), 1, null, null, null, null]);
    for bad in [json!([]), json!([IMAGE, null, null, null, null]), json!(null), json!("x"), json!(2)]
        .into_iter()
        .chain([with(image(), json!({"config": array})), with(image(), json!({"layers": [array]}))])
        .chain([with(image(), json!({"subject": array})), with(image(), json!({"layers": [null]}))])
    {
        assert!(matches!(parse(IMAGE, &bad), Err(ManifestError::Field { .. })), "{bad}");
    }
}

// TYPE-8, DIG-4
#[test]
fn digests_of_other_algorithms_may_be_named() {
    let parsed =
        parse(IMAGE, &with(image(), json!({"layers": [{"mediaType": LAYER, "digest": "blake3:00", "size": 5}]})));
    assert!(
        parsed
            .unwrap()
            .references
            .contains(&Link::Blob { digest: AnyDigest::Unsupported("blake3:00".into()), size: 5 })
    );
}

// TYPE-9, TYPE-13
#[test]
fn unknown_fields_and_odd_types_never_matter() {
    let odd = with(
        image(),
        json!({
            "blobs": 5, "history": [1.5e300, true, null, -1, "\u{1f980}"], "Config": {}, "signatures": {"a": [[]]}, "platform": "x",
            "config": with(descriptor("not a media type", 1), json!({"platform": null, "x": [], "artifactType": null})),
            "layers": [with(descriptor("", 2), json!({"platform": {"os": 5}, "urls": null, "annotations": null, "data": null}))],
            "annotations": null, "subject": null, "artifactType": null,
        }),
    );
    let parsed = parse(IMAGE, &odd).unwrap();
    assert_eq!(parsed.references, [blob(1), blob(2)]);
    assert_eq!(
        (parsed.annotations, parsed.subject, parsed.artifact_type.as_deref()),
        (BTreeMap::new(), None, Some("not a media type"))
    );
}

// TYPE-10, REF-5
#[test]
fn the_artifact_type_of_an_image_without_one_is_the_type_of_its_config() {
    let of = |media_type, manifest| parse(media_type, &manifest).unwrap().artifact_type;
    assert_eq!(of(IMAGE, with(image(), json!({"artifactType": "a/b"}))).as_deref(), Some("a/b"));
    assert_eq!(of(IMAGE, with(image(), json!({"artifactType": ""}))).as_deref(), Some(CONFIG));
    assert_eq!(of(IMAGE, image()).as_deref(), Some(CONFIG));
    let empty = "application/vnd.oci.empty.v1+json";
    assert_eq!(of(IMAGE, with(image(), json!({"config": descriptor(empty, 1)}))).as_deref(), Some(empty));
    assert_eq!(of(INDEX, with(index(), json!({"artifactType": "a/b"}))).as_deref(), Some("a/b"));
    assert_eq!(of(IMAGE, with(image(), json!({"config": descriptor("", 1)}))), None);
    assert_eq!(of(INDEX, index()), None);
    assert_eq!(of(INDEX, with(index(), json!({"artifactType": ""}))), None);
    assert_eq!(of(ARTIFACT, artifact()).as_deref(), Some("c/d"));
}

// TYPE-11
#[test]
fn embedded_data_is_what_the_descriptor_says() {
    let of = |digest: &str, size: u64, data: &str| {
        let layer = json!({"mediaType": "a/b", "digest": digest, "size": size, "data": data});
        parse(IMAGE, &with(image(), json!({"layers": [layer]}))).map_err(|error| error.to_string())
    };
    assert_eq!(of(EMPTY_JSON, 2, "e30=").unwrap().references.len(), 2);
    assert!(of("blake3:00", 2, "e30=").is_ok());
    for (digest, size, data, problem) in [
        (EMPTY_JSON, 2, "e30", "`data` is not base64"),
        (EMPTY_JSON, 2, "e30=!", "`data` is not base64"),
        (EMPTY_JSON, 2, "", "`data` does not have the length that `size` says"),
        (EMPTY_JSON, 3, "e30=", "`data` does not have the length that `size` says"),
        ("blake3:00", 3, "e30=", "`data` does not have the length that `size` says"),
        (EMPTY_JSON, 2, "fXs=", "`data` does not have the digest that `digest` says"),
    ] {
        let text = of(digest, size, data).unwrap_err();
        assert!(text.starts_with(&format!("layers[0]: {problem}")), "{text}");
    }
}

// TYPE-12
#[test]
fn what_is_named_twice_is_needed_once() {
    let empty =
        json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": EMPTY_JSON, "size": 2, "data": "e30="});
    let parsed = parse(IMAGE, &with(image(), json!({"config": empty, "layers": [empty, empty]}))).unwrap();
    assert_eq!(parsed.references, [Link::Blob { digest: AnyDigest::parse(EMPTY_JSON).unwrap(), size: 2 }]);
}

// TYPE-14
#[test]
fn annotations_are_texts_by_name() {
    let annotations = json!({"a": "", "b": "c", "": "d", "org.opencontainers.image.title": "\u{1f980}"});
    for (media_type, manifest) in [(IMAGE, image()), (INDEX, index()), (ARTIFACT, artifact())] {
        let parsed = parse(media_type, &with(manifest.clone(), json!({"annotations": annotations}))).unwrap();
        assert_eq!(serde_json::to_value(parsed.annotations).unwrap(), annotations);
        for bad in [json!(1), json!(null), json!(true), json!({}), json!(["x"])] {
            let text = complaint(media_type, &with(manifest.clone(), json!({"annotations": {"key": bad}})));
            assert!(text.starts_with("annotations.key: "), "{text}");
        }
    }
    let text = complaint(
        IMAGE,
        &with(image(), json!({"layers": [with(descriptor(LAYER, 1), json!({"annotations": {"k": 1}}))]})),
    );
    assert!(text.starts_with("layers[0].annotations.k: "), "{text}");
}

// MAN-7, MAN-10
#[test]
fn a_subject_is_kept_apart_and_only_where_the_type_has_one() {
    let subject = json!({"subject": with(descriptor(IMAGE, 9), json!({"annotations": {"a": "b"}}))});
    for (media_type, manifest) in
        [(IMAGE, image()), (INDEX, index()), (ARTIFACT, artifact()), (ORAS_ARTIFACT, artifact())]
    {
        let parsed = parse(media_type, &with(manifest, subject.clone())).unwrap();
        assert_eq!(serde_json::to_value(parsed.subject.unwrap()).unwrap(), subject["subject"]);
        assert!(!parsed.references.iter().any(|link| link.digest().to_string() == digest(9)));
    }
    for (media_type, manifest) in [(DOCKER_IMAGE, image()), (DOCKER_INDEX, index())] {
        assert_eq!(parse(media_type, &with(manifest, subject.clone())).unwrap().subject, None);
    }
}

// MAN-8
#[test]
fn children_of_an_index_are_manifests_if_their_type_says_so_and_blobs_otherwise() {
    for media_type in [IMAGE, INDEX, DOCKER_IMAGE, DOCKER_INDEX, ARTIFACT, ORAS_ARTIFACT] {
        assert_eq!(
            parse(INDEX, &with(index(), json!({"manifests": [descriptor(media_type, 7)]}))).unwrap().references,
            [child(7)]
        );
    }
    // A build cache, as buildkit exports it.
    let cache = json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [
            with(descriptor(LAYER, 1), json!({"annotations": {"buildkit/createdat": "2026-01-01T00:00:00Z"}})),
            descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", 2),
            descriptor("application/vnd.buildkit.cacheconfig.v0", 3),
        ],
    });
    assert_eq!(parse(INDEX, &cache).unwrap().references, [blob(1), blob(2), blob(3)]);
    // A manifest among the layers is a blob like any other.
    assert_eq!(
        parse(IMAGE, &with(image(), json!({"layers": [descriptor(IMAGE, 2)]}))).unwrap().references,
        [blob(1), blob(2)]
    );
}

// MAN-8
#[test]
fn a_layer_that_is_to_be_had_elsewhere_is_not_needed_here() {
    for suffix in ["oci.image.layer.nondistributable.v1.tar", "oci.image.layer.nondistributable.v1.tar+gzip"]
        .into_iter()
        .chain(["oci.image.layer.nondistributable.v1.tar+zstd", "docker.image.rootfs.foreign.diff.tar.gzip"])
    {
        let layer = |urls: Value| with(descriptor(&format!("application/vnd.{suffix}"), 2), json!({"urls": urls}));
        let of = |layer: Value| parse(IMAGE, &with(image(), json!({"layers": [layer]}))).unwrap().references;
        assert_eq!(of(layer(json!(["https://example.com/layer"]))), [blob(1)]);
        assert_eq!(of(layer(json!([]))), [blob(1), blob(2)]);
        assert_eq!(of(layer(json!(null))), [blob(1), blob(2)]);
    }
    let urls = json!({"urls": ["https://example.com/layer"]});
    let parsed = parse(IMAGE, &with(image(), json!({"layers": [with(descriptor(LAYER, 2), urls)]}))).unwrap();
    assert_eq!(parsed.references, [blob(1), blob(2)]);
}
