use std::{num::NonZeroU32, time::Duration};

use glob::Pattern;
use proptest::prelude::*;

use super::*;

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
const NOW: u64 = 1_800_000_000;

fn patterns(patterns: &[&str]) -> Vec<Pattern> {
    patterns.iter().map(|pattern| Pattern::new(pattern).unwrap()).collect()
}

/// A rule for all repositories.
fn rule() -> Rule {
    Rule { repositories: patterns(&["**"]), ..Rule::default() }
}

fn of_tags(tags: &[&str]) -> Rule {
    Rule { tags: Some(patterns(tags)), ..rule() }
}

fn last(count: u32, rule: Rule) -> Rule {
    Rule { keep_last: NonZeroU32::new(count), ..rule }
}

fn younger(days: u64, rule: Rule) -> Rule {
    Rule { keep_younger: Some(Duration::from_secs(days * DAY)), ..rule }
}

fn majors(count: u32, rule: Rule) -> Rule {
    Rule { keep_semver_majors: NonZeroU32::new(count), ..rule }
}

fn untagged(days: u64) -> Rule {
    Rule { untagged_older: Some(Duration::from_secs(days * DAY)), ..rule() }
}

fn orphaned() -> Rule {
    Rule { orphaned_referrers: true, ..rule() }
}

fn digest(name: &str) -> Digest {
    Digest::of(Algorithm::Sha256, name.as_bytes())
}

/// A tag that was set so many days ago.
fn tag(name: &str, days: u64) -> KnownTag {
    KnownTag { tag: Tag::parse(name).unwrap(), digest: digest(name), at: Some(NOW - days * DAY) }
}

/// A manifest that was pushed so many days ago.
fn manifest(name: &str, days: u64) -> KnownManifest {
    KnownManifest { digest: digest(name), at: Some(NOW - days * DAY), subject: None, children: Vec::new() }
}

fn referrer(name: &str, days: u64, subject: &str) -> KnownManifest {
    KnownManifest { subject: Some(digest(subject)), ..manifest(name, days) }
}

fn index(name: &str, days: u64, children: &[&str]) -> KnownManifest {
    KnownManifest { children: children.iter().map(|child| digest(child)).collect(), ..manifest(name, days) }
}

fn snapshot(tags: Vec<KnownTag>, manifests: Vec<KnownManifest>) -> Snapshot {
    let repository = Repository::parse("team/app").unwrap();
    Snapshot { repository, tags, manifests, now: NOW, grace: DAY }
}

/// Verdicts as words: what happens, and the rule that says so.
fn words(verdicts: &[Verdict]) -> Vec<String> {
    let word = |verdict: &Verdict| match verdict {
        Verdict::Free => "free".to_owned(),
        Verdict::Kept { rule, why } => format!("{rule} {why:?}"),
        Verdict::Deleted { rule, why: Deleted::BeyondLimits { .. } } => format!("{rule} DELETED"),
        Verdict::Deleted { rule, why: Deleted::Unneeded { .. } } => format!("{rule} UNNEEDED"),
        Verdict::Deleted { rule, why: Deleted::Orphaned { .. } } => format!("{rule} ORPHANED"),
    };
    verdicts.iter().map(word).collect()
}

fn judge_tags_by(rules: &[Rule], tags: Vec<KnownTag>) -> Vec<String> {
    words(&judge(rules, &snapshot(tags, Vec::new())).tags)
}

fn judge_manifests_by(rules: &[Rule], tags: Vec<KnownTag>, manifests: Vec<KnownManifest>) -> Vec<String> {
    words(&judge(rules, &snapshot(tags, manifests)).manifests)
}

#[test]
fn what_no_rule_speaks_of_is_free() {
    let tags = || vec![tag("a", 900), tag("1.0.0", 900)];
    assert_eq!(judge_tags_by(&[], tags()), ["free", "free"]);
    let elsewhere = Rule { repositories: patterns(&["team", "team/app/*"]), ..last(1, rule()) };
    assert_eq!(judge_tags_by(&[elsewhere], tags()), ["free", "free"]);
    assert_eq!(judge_tags_by(&[untagged(1), orphaned()], tags()), ["free", "free"]);
    assert_eq!(judge_tags_by(&[last(9, of_tags(&["b"]))], tags()), ["free", "free"]);
    assert_eq!(judge_manifests_by(&[last(1, rule())], vec![], vec![manifest("m", 900)]), ["free"]);
}

#[test]
fn the_last_tags_are_those_that_were_set_last_and_ties_stay_together() {
    let tags = || vec![tag("a", 5), tag("b", 2), tag("c", 4), tag("d", 4), tag("e", 3)];
    let del = "1 DELETED";
    assert_eq!(judge_tags_by(&[last(1, rule())], tags()), [del, "1 Last", del, del, del]);
    assert_eq!(judge_tags_by(&[last(2, rule())], tags()), [del, "1 Last", del, del, "1 Last"]);
    assert_eq!(judge_tags_by(&[last(3, rule())], tags()), [del, "1 Last", "1 Last", "1 Last", "1 Last"]);
    assert_eq!(judge_tags_by(&[last(9, rule())], tags()), ["1 Last"; 5]);
}

#[test]
fn a_tag_stays_if_any_limit_of_its_rule_keeps_it() {
    let tags = vec![tag("a", 9), tag("b", 8), tag("c", 7), tag("d", 3)];
    assert_eq!(judge_tags_by(&[last(2, younger(8, rule()))], tags), ["1 DELETED", "1 Young", "1 Last", "1 Last"]);
    let tags = vec![tag("1.0.0", 9), tag("1.1.0", 8), tag("2.0.0", 7), tag("0.9.0", 1)];
    assert_eq!(judge_tags_by(&[majors(2, last(1, rule()))], tags), ["1 DELETED", "1 Newest", "1 Newest", "1 Last"]);
}

#[test]
fn tags_whose_age_is_unknown_stay_and_take_the_place_of_none_that_is_known() {
    let unknown = |name: &str| KnownTag { at: None, ..tag(name, 0) };
    let tags = vec![unknown("a"), tag("b", 8), tag("c", 9), unknown("d")];
    assert_eq!(
        judge_tags_by(&[last(1, rule())], tags.clone()),
        ["1 AgeUnknown", "1 Last", "1 DELETED", "1 AgeUnknown"]
    );
    assert_eq!(judge_tags_by(&[younger(5, rule())], tags), ["1 AgeUnknown", "1 DELETED", "1 DELETED", "1 AgeUnknown"]);
    // Where nothing depends on it, it need not be known.
    assert_eq!(
        judge_tags_by(&[majors(1, rule())], vec![unknown("1.0.0"), unknown("1.0.1")]),
        ["1 DELETED", "1 Newest"]
    );
}

#[test]
fn the_newest_release_of_each_of_the_last_majors_stays_by_version_and_not_by_time() {
    let tags = ["1.9.0", "1.10.0", "v1.10.0", "2.0.0", "2.0.1-rc.1", "3.0.0-rc.1", "10.2.0", "2", "latest"];
    let tags = || tags.iter().zip(2..).map(|(name, days)| tag(name, days)).collect::<Vec<_>>();
    let (del, new) = ("1 DELETED", "1 Newest");
    assert_eq!(
        judge_tags_by(&[majors(2, rule())], tags()),
        [del, del, del, new, del, del, new, "free", "free"],
        "a pre-release is the newest of nothing, and what is no version is for other rules"
    );
    assert_eq!(
        judge_tags_by(&[majors(3, rule()), last(1, rule())], tags()),
        [del, new, new, new, del, del, new, "2 Last", "2 DELETED"]
    );
}

#[test]
fn the_first_rule_that_speaks_of_a_tag_decides_and_counts_no_others() {
    let rules = [of_tags(&["stable-*"]), last(1, of_tags(&["pr-*"])), untagged(1), last(1, rule())];
    let tags = vec![tag("pr-1", 9), tag("pr-2", 8), tag("stable-1", 1), tag("x", 7), tag("y", 6)];
    assert_eq!(judge_tags_by(&rules, tags), ["2 DELETED", "2 Last", "1 Unlimited", "4 DELETED", "4 Last"]);
}

#[test]
fn untagged_manifests_go_when_they_are_old_unless_an_index_or_a_subject_needs_them() {
    let manifests = vec![
        manifest("old", 15),
        manifest("young", 14),
        manifest("tagged", 90),
        index("index", 10, &["child"]),
        manifest("child", 90),
        referrer("signature", 90, "tagged"),
        referrer("orphan", 90, "nowhere"),
        KnownManifest { at: None, ..manifest("ageless", 0) },
    ];
    assert_eq!(
        judge_manifests_by(&[untagged(14)], vec![tag("tagged", 90)], manifests),
        ["1 UNNEEDED", "1 Young", "free", "1 Young", "free", "free", "1 UNNEEDED", "1 AgeUnknown"]
    );
}

#[test]
fn what_an_old_index_or_subject_needs_goes_only_when_that_has_gone() {
    let referrers =
        || vec![manifest("child", 90), referrer("signature", 90, "index"), referrer("of it", 90, "signature")];
    let all = [vec![index("index", 90, &["child"])], referrers()].concat();
    assert_eq!(judge_manifests_by(&[untagged(14)], vec![], all), ["1 UNNEEDED", "free", "free", "free"]);
    assert_eq!(judge_manifests_by(&[untagged(14)], vec![], referrers()), ["1 UNNEEDED", "1 UNNEEDED", "free"]);
}

#[test]
fn nothing_goes_within_the_grace_however_short_a_rule_is() {
    let hours = |hours: u64| KnownManifest { at: Some(NOW - hours * HOUR), ..manifest("m", 0) };
    let rules = [Rule { untagged_older: Some(Duration::from_secs(1)), ..orphaned() }];
    assert_eq!(judge_manifests_by(&rules, vec![], vec![hours(24), hours(25)]), ["1 Young", "1 UNNEEDED"]);
    let orphan = |known: KnownManifest| KnownManifest { subject: Some(digest("nowhere")), ..known };
    let orphans = vec![orphan(hours(24)), orphan(hours(25))];
    assert_eq!(judge_manifests_by(&rules, vec![], orphans), ["1 Young", "1 ORPHANED"]);
    // Set last, by a replica whose clock is an hour behind.
    let at = |name: &str, hours: u64| KnownTag { at: Some(NOW - hours * HOUR), ..tag(name, 0) };
    let tags = vec![at("a", 0), at("b", 0), at("late", 1), at("old", 25)];
    assert_eq!(judge_tags_by(&[last(2, rule())], tags), ["1 Last", "1 Last", "1 Young", "1 DELETED"]);
}

#[test]
fn orphans_go_by_a_rule_for_them_and_by_one_for_all_that_is_untagged() {
    let manifests = || vec![referrer("orphan", 5, "nowhere"), manifest("plain", 5), referrer("signature", 5, "plain")];
    assert_eq!(judge_manifests_by(&[orphaned()], vec![], manifests()), ["1 ORPHANED", "free", "free"]);
    assert_eq!(
        judge_manifests_by(&[orphaned(), untagged(2)], vec![], manifests()),
        ["1 ORPHANED", "2 UNNEEDED", "free"]
    );
    assert_eq!(
        judge_manifests_by(&[untagged(9), orphaned()], vec![], manifests()),
        ["1 Young", "1 Young", "free"],
        "the first rule that speaks of it decides"
    );
    let tagged = vec![KnownTag { digest: digest("orphan"), ..tag("t", 5) }];
    assert_eq!(judge_manifests_by(&[orphaned()], tagged, manifests()), ["free", "free", "free"]);
}

#[test]
fn tags_that_stand_for_referrers_go_with_their_subject_and_count_for_no_other_rule() {
    let named =
        |subject: &str, suffix: &str, days: u64| tag(&format!("sha256-{}{suffix}", digest(subject).hex()), days);
    let tags = || vec![named("m", ".sig", 9), named("gone", "", 9), named("gone", ".att", 1), tag("a", 3), tag("b", 4)];
    assert_eq!(judge_tags_by(&[last(1, rule())], tags()), ["free", "free", "free", "1 Last", "1 DELETED"]);
    let judged = judge(&[last(1, rule()), orphaned()], &snapshot(tags(), vec![manifest("m", 9)]));
    assert_eq!(words(&judged.tags), ["2 SubjectThere", "2 ORPHANED", "2 Young", "1 Last", "1 DELETED"]);
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let count = || prop_oneof![Just(None), (1..4_u32).prop_map(NonZeroU32::new)];
    let days = || prop_oneof![Just(None), (0..9_u64).prop_map(|days| Some(Duration::from_secs(days * DAY)))];
    let tags = prop_oneof![Just(None), Just(Some(patterns(&["a*"]))), Just(Some(patterns(&["*.*", "b"])))];
    let one = (tags, count(), days(), count(), days(), any::<bool>()).prop_map(
        |(tags, keep_last, keep_younger, keep_semver_majors, untagged_older, orphaned_referrers)| Rule {
            tags,
            keep_last,
            keep_younger,
            keep_semver_majors,
            untagged_older,
            orphaned_referrers,
            ..rule()
        },
    );
    proptest::collection::vec(one, 0..4)
}

fn snapshots() -> impl Strategy<Value = Snapshot> {
    let at = || prop_oneof![Just(None), (0..10_u64).prop_map(|days| Some(NOW - days * DAY))];
    let name = |name: u8| digest(&format!("m{name}"));
    let tag = ("[ab][0-9]|[0-3]\\.[0-2]\\.0|v1\\.0\\.0-rc", 0..6_u8, at()).prop_map(move |(tag, digest, at)| {
        let tag = Tag::parse(&tag).unwrap();
        (tag.to_string(), KnownTag { tag, digest: name(digest), at })
    });
    let manifest = (at(), proptest::option::of(0..8_u8), proptest::collection::vec(0..6_u8, 0..3));
    let manifest = manifest.prop_map(move |(at, subject, children)| {
        let children = children.into_iter().map(name).collect();
        KnownManifest { digest: name(0), at, subject: subject.map(name), children }
    });
    (proptest::collection::vec(tag, 0..12), proptest::collection::vec(manifest, 0..6)).prop_map(
        move |(tags, manifests)| {
            let tags: BTreeMap<String, KnownTag> = tags.into_iter().collect();
            let numbered = (0..).zip(manifests);
            let manifests = numbered.map(|(number, known)| KnownManifest { digest: name(number), ..known });
            snapshot(tags.into_values().collect(), manifests.collect())
        },
    )
}

proptest! {
    #[test]
    fn what_goes_is_needed_by_nothing_that_is_there_and_old_enough(rules in rules(), snapshot in snapshots()) {
        let judged = judge(&rules, &snapshot);
        for (known, verdict) in snapshot.manifests.iter().zip(&judged.manifests) {
            if let Verdict::Deleted { .. } = verdict {
                prop_assert!(snapshot.tags.iter().all(|tag| tag.digest != known.digest));
                prop_assert!(snapshot.manifests.iter().all(|other| !other.children.contains(&known.digest)));
                prop_assert!(snapshot.manifests.iter().all(|other| known.subject != Some(other.digest)));
                prop_assert!(known.at.is_some_and(|at| at + snapshot.grace < NOW));
            }
        }
    }

    #[test]
    fn a_limit_keeps_as_many_as_it_says_and_what_goes_is_older_than_what_stays(
        snapshot in snapshots(),
        count in 1..4_u32,
    ) {
        let judged = judge(&[last(count, rule())], &snapshot);
        let times = |kept: bool| {
            let is_kept = |verdict: &Verdict| matches!(verdict, Verdict::Kept { .. }) == kept;
            let tags = snapshot.tags.iter().zip(&judged.tags).filter(move |(_, verdict)| is_kept(verdict));
            tags.filter_map(|(known, _)| known.at).collect::<Vec<_>>()
        };
        let (kept, gone) = (times(true), times(false));
        prop_assert!(gone.is_empty() || kept.len() >= count as usize);
        prop_assert!(gone.iter().all(|gone| kept.iter().all(|kept| kept > gone)));
    }

    #[test]
    fn the_order_in_which_things_were_read_means_nothing(rules in rules(), snapshot in snapshots()) {
        let mut judged = judge(&rules, &snapshot);
        let mut turned = snapshot;
        turned.tags.reverse();
        turned.manifests.reverse();
        judged.tags.reverse();
        judged.manifests.reverse();
        prop_assert_eq!(judge(&rules, &turned), judged);
    }

    #[test]
    fn a_further_rule_at_the_end_changes_nothing_that_an_earlier_one_decides(
        rules in rules(),
        further in rules(),
        snapshot in snapshots(),
    ) {
        let before = judge(&rules, &snapshot);
        let after = judge(&[rules, further].concat(), &snapshot);
        let pairs = before.tags.iter().zip(&after.tags).chain(before.manifests.iter().zip(&after.manifests));
        for (before, after) in pairs {
            prop_assert!(before == after || *before == Verdict::Free);
        }
    }
}
