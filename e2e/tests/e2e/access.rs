//! What Larder's service accounts may do, asked of the API server over all verbs and kinds.

use std::collections::BTreeSet;

use futures::StreamExt;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};

use crate::support::Env;

const OPERATOR: &str = "system:serviceaccount:larder-system:larder-operator";

/// Everything that the operator may do, over the whole cluster: `verb group/resource`.
const EVERYWHERE: &[&str] = &[
    "get larder.dev/imagecaches",
    "list larder.dev/imagecaches",
    "watch larder.dev/imagecaches",
    "patch larder.dev/imagecaches",
    "update larder.dev/imagecaches",
    "patch larder.dev/imagecaches/status",
    "get larder.dev/imagecacherevisions",
    "list larder.dev/imagecacherevisions",
    "watch larder.dev/imagecacherevisions",
    "create larder.dev/imagecacherevisions",
    "patch larder.dev/imagecacherevisions",
    "update larder.dev/imagecacherevisions",
    "delete larder.dev/imagecacherevisions",
    "get larder.dev/nodeimagecaches",
    "list larder.dev/nodeimagecaches",
    "watch larder.dev/nodeimagecaches",
    "create larder.dev/nodeimagecaches",
    "patch larder.dev/nodeimagecaches",
    "update larder.dev/nodeimagecaches",
    "delete larder.dev/nodeimagecaches",
    "patch larder.dev/nodeimagecaches/status",
    "get /nodes",
    "list /nodes",
    "watch /nodes",
    "get /pods",
    "list /pods",
    "watch /pods",
    "create /pods",
    "delete /pods",
    "get batch/jobs",
    "list batch/jobs",
    "watch batch/jobs",
    "create batch/jobs",
    "patch batch/jobs",
    "delete batch/jobs",
    "list /configmaps",
    "watch /configmaps",
    "list apps/deployments",
    "watch apps/deployments",
    "list apps/statefulsets",
    "watch apps/statefulsets",
    "list apps/daemonsets",
    "watch apps/daemonsets",
    "list batch/cronjobs",
    "watch batch/cronjobs",
    "get /secrets",
    "create events.k8s.io/events",
    "patch events.k8s.io/events",
    // Whatever is authenticated may ask about itself.
    "create authorization.k8s.io/selfsubjectaccessreviews",
    "create authorization.k8s.io/selfsubjectrulesreviews",
    "create authentication.k8s.io/selfsubjectreviews",
];

/// Everything that an agent may do; admission holds what it writes to its own node.
const AGENT: &[&str] = &[
    "get larder.dev/nodeimagecaches",
    "list larder.dev/nodeimagecaches",
    "watch larder.dev/nodeimagecaches",
    "get larder.dev/imagecacherevisions",
    "patch larder.dev/nodeimagecaches/status",
];

/// What it may do in its own namespace beside.
const AT_HOME: &[&str] = &[
    "get coordination.k8s.io/leases",
    "create coordination.k8s.io/leases",
    "update coordination.k8s.io/leases",
];

const VERBS: &[&str] = &[
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "bind",
    "escalate",
    "impersonate",
    "approve",
    "sign",
    "attest",
    "use",
    "*",
];

/// Group and resource of everything that the API server serves, subresources too; and what no discovery lists.
async fn resources(client: &Client) -> BTreeSet<(String, String)> {
    let mut lists = vec![client.list_core_api_resources("v1").await.unwrap()];
    for group in client.list_api_groups().await.unwrap().groups {
        for version in group.versions {
            lists.push(
                client
                    .list_api_group_resources(&version.group_version)
                    .await
                    .unwrap(),
            );
        }
    }
    let mut all = BTreeSet::new();
    for list in lists {
        let group = list
            .group_version
            .rsplit_once('/')
            .map_or("", |(group, _)| group)
            .to_owned();
        for resource in list.resources {
            // A CRD has finalizers as a subresource that discovery does not list.
            if group == "larder.dev" && !resource.name.contains('/') {
                all.insert((group.clone(), format!("{}/finalizers", resource.name)));
            }
            all.insert((group.clone(), resource.name));
        }
    }
    for group in ["", "larder.dev", "example.com", "*"] {
        all.insert((group.to_owned(), "*".to_owned()));
    }
    all.extend(["users", "groups", "userextras"].map(|r| (String::new(), r.to_owned())));
    all
}

/// Asks the API server about every verb on every resource; returns what it allows.
async fn allowed(
    client: &Client,
    user: &str,
    namespace: &str,
    resources: &BTreeSet<(String, String)>,
) -> BTreeSet<String> {
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let groups: Vec<String> = match user
        .strip_prefix("system:serviceaccount:")
        .and_then(|u| u.split_once(':'))
    {
        Some((home, _)) => vec![
            "system:serviceaccounts".into(),
            format!("system:serviceaccounts:{home}"),
            "system:authenticated".into(),
        ],
        None => vec!["system:authenticated".into()],
    };
    let ask = |verb: &str, group: &str, resource: &str| {
        let (name, subresource) = resource
            .split_once('/')
            .map_or((resource, None), |(r, s)| (r, Some(s.to_owned())));
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.to_owned()),
                groups: Some(groups.clone()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.to_owned()),
                    group: Some(group.to_owned()),
                    resource: Some(name.to_owned()),
                    subresource,
                    // Empty: in all namespaces, and of the cluster.
                    namespace: Some(namespace.to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviews = reviews.clone();
        let question = format!("{verb} {group}/{resource}");
        async move {
            let answer = reviews.create(&PostParams::default(), &review).await.unwrap();
            answer.status.unwrap().allowed.then_some(question)
        }
    };
    let questions: Vec<_> = resources
        .iter()
        .flat_map(|(g, r)| VERBS.iter().map(move |v| ask(v, g, r)))
        .collect();
    assert!(
        questions.len() > 1000,
        "the API server serves more than {} resources",
        resources.len()
    );
    futures::stream::iter(questions)
        .buffer_unordered(32)
        .filter_map(|a| async { a })
        .collect()
        .await
}

fn written(lists: &[&[&str]]) -> BTreeSet<String> {
    lists
        .iter()
        .flat_map(|list| list.iter().map(|line| (*line).to_owned()))
        .collect()
}

#[tokio::test]
async fn the_operator_may_do_what_is_written_here_and_nothing_else() {
    let env = Env::shared().await;
    let all = resources(&env.client).await;
    let everywhere = allowed(&env.client, OPERATOR, "", &all).await;
    let finalizers = ["imagecaches", "imagecacherevisions", "nodeimagecaches"]
        .map(|kind| format!("update larder.dev/{kind}/finalizers"));
    let mut expected = written(&[EVERYWHERE]);
    expected.extend(finalizers);
    assert_eq!(differences(&everywhere, &expected), Vec::<String>::new());
    for question in &everywhere {
        assert!(!question.contains('*'), "a wildcard: {question}");
    }
    for secret in [
        "list /secrets",
        "watch /secrets",
        "create /secrets",
        "update /secrets",
        "delete /secrets",
    ] {
        assert!(!everywhere.contains(secret), "{secret}");
    }
    let mut at_home = expected.clone();
    at_home.extend(written(&[AT_HOME]));
    assert_eq!(
        differences(
            &allowed(&env.client, OPERATOR, "larder-system", &all).await,
            &at_home
        ),
        Vec::<String>::new()
    );
    for namespace in ["larder-agents", "kube-system", "default"] {
        let there = allowed(&env.client, OPERATOR, namespace, &all).await;
        assert_eq!(
            differences(&there, &expected),
            Vec::<String>::new(),
            "in {namespace}"
        );
    }
}

#[tokio::test]
async fn purge_jobs_and_their_account_have_no_rights() {
    let env = Env::shared().await;
    let all = resources(&env.client).await;
    let expected: BTreeSet<String> = written(&[EVERYWHERE])
        .into_iter()
        .filter(|line| line.contains("/selfsubject"))
        .collect();
    let account = "system:serviceaccount:larder-agents:larder-purge";
    for namespace in ["", "larder-agents"] {
        let may = allowed(&env.client, account, namespace, &all).await;
        assert_eq!(differences(&may, &expected), Vec::<String>::new());
    }
}

#[tokio::test]
async fn agents_may_do_what_is_written_here_and_nothing_else() {
    let env = Env::shared().await;
    let all = resources(&env.client).await;
    let mut expected = written(&[AGENT]);
    expected.extend(
        written(&[EVERYWHERE])
            .into_iter()
            .filter(|line| line.contains("/selfsubject")),
    );
    let account = "system:serviceaccount:larder-agents:larder-agent";
    for namespace in ["", "larder-agents", "larder-system", "kube-system", "default"] {
        let may = allowed(&env.client, account, namespace, &all).await;
        assert_eq!(
            differences(&may, &expected),
            Vec::<String>::new(),
            "in {namespace:?}"
        );
    }
}

/// Lines on one side only, with the side.
fn differences(is: &BTreeSet<String>, should: &BTreeSet<String>) -> Vec<String> {
    let more = is
        .difference(should)
        .map(|line| format!("may, but should not: {line}"));
    let less = should
        .difference(is)
        .map(|line| format!("should, but may not: {line}"));
    more.chain(less).collect()
}
