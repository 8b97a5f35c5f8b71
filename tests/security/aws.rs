//! Workload identity from AWS: how pods of EKS get roles is said by environment variables, so each case has a process of its own.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use millrace::bigquery::connect;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::aws_signature::verified;
use crate::certificates::Certificates;
use crate::fake_grpc::{Fake, Reply};
use crate::front::{Clients, Front};
use crate::guarded_rest::GuardedRest;
use crate::token_server::{AWS_SECRET, AWS_SESSION, Asked, TokenServer, impersonated, token};
use crate::{bigquery_config, file, logged, one_row, table};

const AUDIENCE: &str = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/aws";
const POD_TOKEN: &str = "secret-token-of-the-pod";

/// What the process of its own does: two questions by REST, the second of which is refused once, and an append.
#[tokio::test]
#[ignore = "needs the environment that the other tests of this file give it"]
async fn child() {
    logged::keep();
    let env = |name: &str| std::env::var(name).unwrap();
    let config = bigquery_config(env("SECURITY_REST"), env("SECURITY_GRPC"), "application-default");
    let ca_file = std::env::var_os("SECURITY_CA_FILE");
    let bigquery = connect(&config, ca_file.as_deref().map(Path::new)).await.unwrap();
    for name in ["a", "b"] {
        match bigquery.tables().get(&table(name)).await {
            Ok(found) => println!("table {name}: {}", found.is_some()),
            Err(error) => println!("table {name}: {:?} {error}", error.cause),
        }
    }
    println!("append: {:?}", bigquery.appender().append(one_row(&table("a"))).await);
    logged::print();
}

struct Case {
    folder: tempfile::TempDir,
    tokens: TokenServer,
    rest: GuardedRest,
    grpc: Fake,
    /// What the process wrote, its log at the level of debugging included.
    output: String,
}

impl Case {
    async fn prepare() -> Self {
        let (folder, tokens) = (tempfile::tempdir().unwrap(), TokenServer::start().await);
        let grpc = Fake::start(|_, _| (Reply::Ok, Duration::ZERO)).await;
        file(&folder, "pod-token", format!("{POD_TOKEN}\n"));
        Self { folder, tokens, rest: GuardedRest::default(), grpc, output: String::new() }
    }

    fn pod_token(&self) -> String {
        self.folder.path().join("pod-token").display().to_string()
    }

    /// Runs [`child`] with the account of `GOOGLE_APPLICATION_CREDENTIALS` and these variables.
    async fn run(&mut self, impersonate: bool, environment: &[(&str, &str)]) {
        let mut account = json!({
            "type": "external_account", "audience": AUDIENCE, "subject_token_type": "urn:ietf:params:aws:token-type:aws4_request",
            "token_url": self.tokens.url("/v1/token"),
            "credential_source": {
                "environment_id": "aws1", "region_url": "http://169.254.169.254/latest/meta-data/placement/availability-zone",
                "url": "http://169.254.169.254/latest/meta-data/iam/security-credentials",
                "regional_cred_verification_url": "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15",
            },
        });
        if impersonate {
            account["service_account_impersonation_url"] =
                "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/mill@p.iam.gserviceaccount.com:generateAccessToken"
                    .into();
        }
        let account = file(&self.folder, "account.json", account.to_string());
        self.rest.refuse(&[false, true]);
        let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "aws::child", "--ignored", "--nocapture"]).stdin(Stdio::null()).kill_on_drop(true);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_") || name.to_lowercase().ends_with("_proxy")) {
            command.env_remove(name);
        }
        command.env("SECURITY_REST", self.rest.start().await).env("SECURITY_GRPC", self.grpc.endpoint().unwrap());
        command.env("GOOGLE_APPLICATION_CREDENTIALS", account).env("AWS_REGION", "eu-west-1").envs(environment.iter().copied());
        let output = tokio::time::timeout(Duration::from_secs(90), command.output()).await.unwrap().unwrap();
        self.output = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && self.output.contains("1 passed"), "{}", self.output);
    }

    /// Both questions and the append went through with these tokens; every exchange had a subject token that AWS would take.
    fn assert_worked(&self, secret: &str, rest: [String; 3]) -> Vec<Asked> {
        for line in ["table a: true", "table b: true", "append: Ok(())"] {
            assert!(self.output.contains(line), "{}", self.output);
        }
        let appended = format!("Bearer {}", rest[2]);
        assert_eq!(self.rest.seen(), rest.map(|token| format!("Bearer {token}")));
        assert_eq!(self.grpc.seen()[0].authorization, appended);
        let (exchanges, others): (Vec<_>, Vec<_>) = self.tokens.asked().into_iter().partition(|asked| asked.path == "/v1/token");
        assert_eq!(exchanges.len(), 2, "one exchange, and one after the refusal");
        for exchange in exchanges {
            let caller = verified(&exchange.form["subject_token"], secret);
            assert_eq!(caller.url.host_str(), Some("sts.eu-west-1.amazonaws.com"));
            assert_eq!(caller.headers["x-goog-cloud-target-resource"], AUDIENCE);
            assert_eq!(caller.headers.get("x-amz-security-token").map(String::as_str), Some(AWS_SESSION));
            assert_eq!(exchange.form["subject_token_type"], "urn:ietf:params:aws:token-type:aws4_request");
        }
        self.assert_hidden(secret);
        others
    }

    fn assert_hidden(&self, secret: &str) {
        assert!(self.output.contains("DEBUG"), "nothing was logged: the search would be blind");
        let tokens = [token(1), token(2), token(3), token(4), impersonated(3)];
        for hidden in tokens.iter().map(String::as_str).chain([secret, AWS_SESSION, POD_TOKEN, "X-Amz-Signature", "Signature="]) {
            let shown = self.output.lines().find(|line| line.contains(hidden));
            assert!(shown.is_none(), "a secret is shown: {}", shown.unwrap_or_default());
        }
    }
}

#[tokio::test]
async fn keys_of_the_environment() {
    let mut case = Case::prepare().await;
    let secret = "environment-Secret/key+";
    let keys = [("AWS_ACCESS_KEY_ID", "AKIAENV"), ("AWS_SECRET_ACCESS_KEY", secret), ("AWS_SESSION_TOKEN", AWS_SESSION)];
    case.run(false, &keys).await;
    let others = case.assert_worked(secret, [token(1), token(1), token(2)]);
    assert!(others.is_empty(), "{others:?}");
}

#[tokio::test]
async fn eks_pod_identity() {
    let mut case = Case::prepare().await;
    let (url, file) = (case.tokens.url("/v1/credentials"), case.pod_token());
    case.run(false, &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url), ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &file)]).await;
    // Each exchange is preceded by a question for the role's keys.
    let others = case.assert_worked(AWS_SECRET, [token(2), token(2), token(4)]);
    assert!(others.len() == 2 && others.iter().all(|asked| asked.authorization == POD_TOKEN), "{others:?}");
}

#[tokio::test]
async fn a_pod_identity_that_is_refused_is_a_hold_without_the_pod_s_token() {
    let mut case = Case::prepare().await;
    case.tokens.refuse(403, "denied");
    let (url, file) = (case.tokens.url("/v1/credentials"), case.pod_token());
    case.run(false, &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url), ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &file)]).await;
    let line = case.output.lines().find(|line| line.starts_with("table a: ")).unwrap();
    println!("{line}");
    assert!(line.contains("Unauthenticated") && line.contains("container's credentials endpoint: HTTP 403"), "{line}");
    assert!(case.rest.seen().is_empty() && case.grpc.seen().is_empty());
    case.assert_hidden(AWS_SECRET);
}

/// A pod with a role by web identity, behind a proxy, whose servers `trust` vouches for.
fn web_identity<'a>(file: &'a str, proxy: &'a str, trust: (&'a str, &'a str)) -> [(&'a str, &'a str); 4] {
    [("AWS_ROLE_ARN", "arn:aws:iam::1:role/mill"), ("AWS_WEB_IDENTITY_TOKEN_FILE", file), ("HTTPS_PROXY", proxy), trust]
}

/// AWS's STS has an address of its own in the program: an HTTPS proxy leads to a stand-in that a private authority vouches for.
#[tokio::test]
async fn eks_web_identity_by_a_proxy_and_ca_file() {
    let mut case = Case::prepare().await;
    let certificates = Certificates::make_for(case.folder.path(), "DNS:sts.eu-west-1.amazonaws.com").unwrap();
    let front = Front::start(&case.tokens.url(""), &certificates, Clients::Any).await;
    let (proxy, file) = (proxy_to(&front).await, case.pod_token());
    let ca = certificates.ca.display().to_string();
    let environment = web_identity(&file, &proxy, ("SECURITY_CA_FILE", ca.as_str()));
    case.run(false, &environment).await;
    let others = case.assert_worked(AWS_SECRET, [token(2), token(2), token(4)]);
    assert_eq!(others.len(), 2);
    for assumed in others {
        assert_eq!((assumed.form["RoleArn"].as_str(), assumed.form["WebIdentityToken"].as_str()), ("arn:aws:iam::1:role/mill", POD_TOKEN));
    }
}

/// google-cloud-auth's own connections: they trust what `SSL_CERT_FILE` names.
#[tokio::test]
async fn impersonation_from_eks_by_a_proxy_and_ssl_cert_file() {
    let mut case = Case::prepare().await;
    let names = "DNS:sts.eu-west-1.amazonaws.com,DNS:iamcredentials.googleapis.com";
    let certificates = Certificates::make_for(case.folder.path(), names).unwrap();
    let front = Front::start(&case.tokens.url(""), &certificates, Clients::Any).await;
    let (proxy, file) = (proxy_to(&front).await, case.pod_token());
    let ca = certificates.ca.display().to_string();
    let environment = web_identity(&file, &proxy, ("SSL_CERT_FILE", ca.as_str()));
    case.run(true, &environment).await;
    // Role, exchange, impersonation; then all again.
    let others = case.assert_worked(AWS_SECRET, [impersonated(3), impersonated(3), impersonated(6)]);
    let impersonations: Vec<&Asked> = others.iter().filter(|asked| asked.path.ends_with(":generateAccessToken")).collect();
    assert_eq!(impersonations.len(), 2);
    assert_eq!(impersonations[0].authorization, format!("Bearer {}", token(2)));
    assert_eq!(impersonations[0].path, "/v1/projects/-/serviceAccounts/mill@p.iam.gserviceaccount.com:generateAccessToken");
}

/// An HTTP proxy that knows CONNECT only and leads everywhere to `front`. Gives its address.
async fn proxy_to(front: &Front) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, front) = (listener.local_addr().unwrap(), front.address);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut client = BufReader::new(client);
                let mut line = String::new();
                client.read_line(&mut line).await.unwrap();
                assert!(line.starts_with("CONNECT "), "{line}");
                while line.trim_end() != "" {
                    line.clear();
                    client.read_line(&mut line).await.unwrap();
                }
                client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
                let mut server = TcpStream::connect(front).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    format!("http://{address}")
}
