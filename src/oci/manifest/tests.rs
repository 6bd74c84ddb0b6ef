use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

mod descriptors;

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";
const ORAS_ARTIFACT: &str = "application/vnd.cncf.oras.artifact.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const EMPTY_JSON: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

fn digest(n: u8) -> String {
    format!("sha256:{}", format!("{n:02x}").repeat(32))
}

fn descriptor(media_type: &str, n: u8) -> Value {
    json!({"mediaType": media_type, "digest": digest(n), "size": n})
}

fn image() -> Value {
    json!({"schemaVersion": 2, "config": descriptor(CONFIG, 1), "layers": [descriptor(LAYER, 2), descriptor(LAYER, 3)]})
}

fn index() -> Value {
    json!({"schemaVersion": 2, "manifests": [descriptor(IMAGE, 1), descriptor(INDEX, 2)]})
}

fn artifact() -> Value {
    json!({"blobs": [descriptor("a/b", 1)], "artifactType": "c/d"})
}

/// The manifest with some fields replaced or added.
fn with(mut manifest: Value, fields: Value) -> Value {
    let Value::Object(fields) = fields else { panic!("not fields: {fields}") };
    manifest.as_object_mut().unwrap().extend(fields);
    manifest
}

fn without(mut manifest: Value, field: &str) -> Value {
    manifest.as_object_mut().unwrap().remove(field).unwrap();
    manifest
}

fn parse(content_type: &str, manifest: &Value) -> Result<Manifest, ManifestError> {
    Manifest::parse(Some(content_type), manifest.to_string().as_bytes())
}

fn complaint(content_type: &str, manifest: &Value) -> String {
    parse(content_type, manifest).unwrap_err().to_string()
}

fn blob(n: u8) -> Link {
    Link::Blob { digest: AnyDigest::parse(&digest(n)).unwrap(), size: n.into() }
}

fn child(n: u8) -> Link {
    Link::Manifest { digest: AnyDigest::parse(&digest(n)).unwrap(), size: n.into() }
}

// TYPE-1
#[test]
fn every_type_names_what_it_needs() {
    for (media_type, manifest, references) in [
        (IMAGE, image(), vec![blob(1), blob(2), blob(3)]),
        (DOCKER_IMAGE, image(), vec![blob(1), blob(2), blob(3)]),
        (INDEX, index(), vec![child(1), child(2)]),
        (DOCKER_INDEX, index(), vec![child(1), child(2)]),
        (ARTIFACT, artifact(), vec![blob(1)]),
        (ORAS_ARTIFACT, artifact(), vec![blob(1)]),
    ] {
        let parsed = parse(media_type, &manifest).unwrap();
        assert_eq!((parsed.media_type.as_str(), parsed.references), (media_type, references));
        assert_eq!(
            parse(media_type, &with(manifest, json!({"mediaType": media_type}))).unwrap().media_type,
            media_type
        );
    }
}

// MAN-4
#[test]
fn parameters_and_case_of_the_content_type_do_not_count() {
    for content_type in [format!("{IMAGE}; charset=utf-8"), IMAGE.to_uppercase(), format!(" {IMAGE} ;x")] {
        assert_eq!(parse(&content_type, &with(image(), json!({"mediaType": IMAGE}))).unwrap().media_type, IMAGE);
    }
}

// MAN-5
#[test]
fn the_type_is_that_of_the_header_else_of_the_body_else_of_its_shape() {
    for (body, shape) in [(image(), IMAGE), (index(), INDEX)] {
        let other = if shape == IMAGE { DOCKER_IMAGE } else { DOCKER_INDEX };
        for generic in
            [None, Some(""), Some("application/json"), Some("application/octet-stream; x=y"), Some("Application/JSON")]
        {
            let of = |body: &Value| {
                Manifest::parse(generic, body.to_string().as_bytes()).map(|manifest| manifest.media_type)
            };
            assert_eq!(of(&body).as_deref(), Ok(shape), "{generic:?}");
            assert_eq!(of(&with(body.clone(), json!({"mediaType": ""}))).as_deref(), Ok(shape));
            assert_eq!(of(&with(body.clone(), json!({"mediaType": null}))).as_deref(), Ok(shape));
            assert_eq!(of(&with(body.clone(), json!({"mediaType": other}))).as_deref(), Ok(other));
        }
        assert_eq!(parse(other, &body).unwrap().media_type, other);
    }
    assert_eq!(parse("", &json!({"schemaVersion": 2})), Err(ManifestError::Untyped));
    assert_eq!(parse("", &json!({})), Err(ManifestError::Untyped));
    assert_eq!(parse("", &artifact()), Err(ManifestError::Untyped));
}

// MAN-5, TYPE-4
#[test]
fn header_and_body_must_not_contradict_each_other() {
    for (content_type, body, media_type) in [
        (IMAGE, image(), DOCKER_IMAGE),
        (DOCKER_IMAGE, image(), IMAGE),
        (INDEX, index(), DOCKER_INDEX),
        (INDEX, index(), IMAGE),
        (IMAGE, image(), "application/json"),
        (IMAGE, image(), "x"),
    ] {
        assert_eq!(
            complaint(content_type, &with(body, json!({"mediaType": media_type}))),
            format!("Content-Type is `{content_type}`, but `mediaType` is `{media_type}`")
        );
    }
}

// TYPE-2
#[test]
fn schema_1_and_unknown_types_are_not_supported() {
    let schema_1 = json!({"schemaVersion": 1, "name": "a", "tag": "b", "fsLayers": [], "history": []});
    for unknown in [
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    ]
    .into_iter()
    .chain(["text/plain", "application/vnd.oci.image.config.v1+json", "*/*"])
    {
        assert_eq!(parse(unknown, &schema_1), Err(ManifestError::UnknownType(unknown.to_owned())));
        assert_eq!(parse(unknown, &image()), Err(ManifestError::UnknownType(unknown.to_owned())));
        assert_eq!(
            parse("", &with(image(), json!({"mediaType": unknown}))),
            Err(ManifestError::UnknownType(unknown.to_owned()))
        );
    }
    assert_eq!(parse("application/json", &schema_1), Err(ManifestError::Untyped));
    assert!(parse(IMAGE, &schema_1).is_err());
}

// TYPE-3
#[test]
fn the_schema_version_is_the_integer_2() {
    for (media_type, manifest) in [(IMAGE, image()), (INDEX, index()), (DOCKER_IMAGE, image()), (DOCKER_INDEX, index())]
    {
        for bad in [json!(1), json!(3), json!(0), json!(-2), json!(2.0), json!("2"), json!(null), json!([2])] {
            let text = complaint(media_type, &with(manifest.clone(), json!({"schemaVersion": bad})));
            assert!(text.starts_with("schemaVersion: "), "{text}");
        }
        let text = complaint(media_type, &without(manifest, "schemaVersion"));
        assert!(text.starts_with("manifest: missing field `schemaVersion`"), "{text}");
    }
}

// TYPE-5
#[test]
fn an_image_has_a_config_and_perhaps_layers() {
    for empty in [json!([]), json!(null)] {
        assert_eq!(parse(IMAGE, &with(image(), json!({"layers": empty}))).unwrap().references, [blob(1)]);
    }
    assert_eq!(parse(IMAGE, &without(image(), "layers")).unwrap().references, [blob(1)]);
    for bad in
        [without(image(), "config"), with(image(), json!({"config": null})), with(image(), json!({"layers": {}}))]
    {
        assert!(matches!(parse(IMAGE, &bad), Err(ManifestError::Field { .. })), "{bad}");
    }
}

// TYPE-6
#[test]
fn an_index_has_a_list_that_may_be_empty() {
    for empty in [json!([]), json!(null)] {
        assert_eq!(parse(INDEX, &with(index(), json!({"manifests": empty}))).unwrap().references, []);
    }
    let text = complaint(INDEX, &without(index(), "manifests"));
    assert!(text.starts_with("manifest: missing field `manifests`"), "{text}");
}

// TYPE-7
#[test]
fn what_could_be_read_as_another_type_is_refused() {
    for (media_types, manifest, fields) in [
        ([IMAGE, DOCKER_IMAGE], image(), &["manifests", "fsLayers"][..]),
        ([INDEX, DOCKER_INDEX], index(), &["config", "layers", "blobs", "fsLayers"]),
        ([ARTIFACT, ORAS_ARTIFACT], artifact(), &["config", "layers", "manifests", "fsLayers"]),
    ] {
        for media_type in media_types {
            for field in fields {
                for value in [json!([]), json!({}), json!("x"), json!([descriptor(IMAGE, 9)])] {
                    assert_eq!(
                        complaint(media_type, &with(manifest.clone(), json!({*field: value}))),
                        format!("`{field}` has no place in a manifest of type `{media_type}`")
                    );
                }
                assert!(parse(media_type, &with(manifest.clone(), json!({*field: null}))).is_ok());
            }
        }
    }
    assert!(parse("", &with(image(), index())).is_err());
    let either = with(artifact(), json!({"schemaVersion": 2, "manifests": null}));
    assert!(parse(ARTIFACT, &either).is_ok() && parse(INDEX, &either).is_err());
}

// TYPE-7
#[test]
fn a_key_that_comes_twice_is_refused_wherever_it_is() {
    for (at, replacement) in [
        (r#""schemaVersion":2"#, r#""schemaVersion":2,"schemaVersion":2"#),
        (r#""schemaVersion":2"#, r#""schemaVersion":2,"x":{"y":[{"z":1,"z":1}]}"#),
        (r#""schemaVersion":2"#, r#""schemaVersion":2,"schema\u0056ersion":2"#),
        (r#""size":3"#, r#""size":3,"size":3"#),
        (r#""size":3"#, r#""size":3,"annotations":{"a":"b","a":"c"}"#),
    ] {
        let text = image().to_string();
        assert!(text.contains(at));
        let error = Manifest::parse(Some(IMAGE), text.replacen(at, replacement, 1).as_bytes()).unwrap_err();
        assert!(matches!(&error, ManifestError::Json(text) if text.contains("comes twice")), "{error}");
    }
}

// TYPE-15
#[test]
fn nesting_is_bounded_also_where_nobody_reads() {
    let nested = |depth: usize| {
        format!(r#"{{"x":{}{},"schemaVersion":2,"manifests":[]}}"#, "[".repeat(depth), "]".repeat(depth))
    };
    assert!(Manifest::parse(None, nested(100).as_bytes()).is_ok());
    for depth in [200, 2_000_000] {
        assert!(matches!(Manifest::parse(None, nested(depth).as_bytes()), Err(ManifestError::Json(_))));
    }
}

// TYPE-15
#[test]
fn what_one_manifest_may_need_is_bounded() {
    let of = |count| parse(INDEX, &with(index(), json!({"manifests": vec![descriptor(IMAGE, 1); count]})));
    assert_eq!(of(MAX_REFERENCES).unwrap().references, [child(1)]);
    assert_eq!(of(MAX_REFERENCES + 1), Err(ManifestError::TooManyReferences));
}

// MAN-6
#[test]
fn a_manifest_of_4_mib_is_taken_and_no_larger_one() {
    let mut bytes = image().to_string().into_bytes();
    bytes.resize(MAX_MANIFEST, b' ');
    assert!(Manifest::parse(Some(IMAGE), &bytes).is_ok());
    bytes.push(b' ');
    assert_eq!(Manifest::parse(Some(IMAGE), &bytes), Err(ManifestError::TooLarge));
}

#[test]
fn what_is_not_json_is_refused() {
    for bad in [
        &b""[..],
        b"{",
        b"{}}",
        b"\xff",
        b"{\"a\":\"\xff\"}",
        b"\xef\xbb\xbf{}",
        b"{'a':1}",
        b"{\"a\":1,}",
        b"NaN",
        b"{\"a\":\"\\ud800\"}",
    ] {
        assert!(matches!(Manifest::parse(Some(IMAGE), bad), Err(ManifestError::Json(_))), "{bad:?}");
    }
}

#[test]
fn a_complaint_is_short_however_long_the_text_at_fault() {
    let long = "x".repeat(1_000_000);
    for bad in [
        with(image(), json!({"mediaType": long})),
        with(image(), json!({"schemaVersion": long})),
        with(image(), json!({"annotations": {&long: 1}})),
        with(image(), json!({"config": long})),
    ] {
        assert!(complaint(IMAGE, &bad).len() < 600);
        assert!(complaint("", &bad).len() < 600);
    }
    let twice = format!(r#"{{"{long}":1,"{long}":1}}"#);
    assert!(Manifest::parse(None, twice.as_bytes()).unwrap_err().to_string().len() < 600);
}

/// Any JSON, built of the names that manifests have.
fn any_json() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(
        &[
            "schemaVersion",
            "mediaType",
            "config",
            "layers",
            "manifests",
            "blobs",
            "subject",
            "annotations",
            "digest",
            "size",
        ][..],
    );
    let leaf = prop_oneof![
        Just(json!(null)),
        Just(json!(2)),
        Just(json!(IMAGE)),
        Just(json!(INDEX)),
        Just(json!(EMPTY_JSON)),
        Just(descriptor(LAYER, 1)),
        any::<i64>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name.clone().prop_map(str::to_owned), inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes: Vec<u8>, text in "\\PC*", json in any_json(), content_type in "\\PC{0,40}") {
        for body in [&bytes[..], text.as_bytes(), json.to_string().as_bytes()] {
            for content_type in [None, Some(content_type.as_str()), Some(IMAGE), Some(INDEX), Some(ARTIFACT)] {
                if let Ok(manifest) = Manifest::parse(content_type, body) {
                    prop_assert!(ManifestType::parse(&manifest.media_type).is_some());
                    prop_assert!(manifest.references.is_sorted());
                }
            }
        }
    }

    #[test]
    fn an_image_needs_its_config_and_exactly_its_layers(layers in prop::collection::vec(any::<u8>(), 0..20), pretty: bool) {
        let listed: Vec<Value> = layers.iter().map(|n| descriptor(LAYER, *n)).collect();
        let body = with(image(), json!({"layers": listed}));
        let text = if pretty { serde_json::to_string_pretty(&body).unwrap() } else { body.to_string() };
        let mut needed: Vec<Link> = layers.into_iter().chain([1]).map(blob).collect();
        needed.sort();
        needed.dedup();
        prop_assert_eq!(Manifest::parse(Some(IMAGE), text.as_bytes()).unwrap().references, needed);
    }
}
