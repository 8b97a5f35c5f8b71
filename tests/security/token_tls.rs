//! Google's token endpoints behind a private authority: `[worker] ca_file` reaches them too. They are asked by a library with HTTP clients
//! of its own, so this looks at the program itself.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::certificates::Certificates;
use crate::front::{Clients, Front};
use crate::guarded_rest::GuardedRest;
use crate::token_server::{TokenServer, impersonated, token};
use crate::{authority, file};

struct Secured {
    tokens: TokenServer,
    front: Front,
    rest: GuardedRest,
    rest_url: String,
    certificates: Certificates,
    folder: TempDir,
}

impl Secured {
    async fn start() -> Self {
        let (folder, certificates) = authority();
        let tokens = TokenServer::start().await;
        let front = Front::start(&tokens.url(""), &certificates, Clients::Any).await;
        let rest = GuardedRest::default();
        let rest_url = rest.start().await;
        Self { tokens, front, rest, rest_url, certificates, folder }
    }

    fn external(&self) -> Value {
        let subject = file(&self.folder, "subject", "subject-token");
        json!({
            "type": "external_account", "audience": "//iam.googleapis.com/pool", "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": format!("{}/v1/token", self.front.url()), "credential_source": { "file": subject },
        })
    }

    fn user(&self) -> Value {
        json!({
            "type": "authorized_user", "client_id": "id.apps", "client_secret": "c", "refresh_token": "r",
            "token_uri": format!("{}/token", self.front.url()),
        })
    }

    fn impersonation_url(&self) -> String {
        format!("{}/v1/projects/-/serviceAccounts/mill@p.iam.gserviceaccount.com:generateAccessToken", self.front.url())
    }

    /// `millrace check` with this account.
    async fn check(&self, account: &Value, ca_file: Option<&Path>, environment: &[(&'static str, &Path)]) -> String {
        let account = file(&self.folder, "account.json", account.to_string());
        let ca_file = ca_file.map_or_else(String::new, |path| format!("[worker]\nca_file = \"{}\"\n", path.display()));
        let fleet = format!(
            "[kafka]\n\"bootstrap.servers\" = \"127.0.0.1:1\"\n[bigquery]\nproject = \"p\"\ncredentials = \"{}\"\nrest_endpoint = \"{}\"\n\
             grpc_endpoint = \"http://127.0.0.1:1\"\n{ca_file}",
            account.display(),
            self.rest_url,
        );
        let config = file(&self.folder, "millrace.toml", fleet);
        let connectors = self.folder.path().join("connectors");
        std::fs::create_dir_all(&connectors).unwrap();
        let connector = "topics = [\"t\"]\n[value]\nformat = \"json\"\n[table]\nname = \"d.t\"\n[errors]\ndead_letter_topic = \"dead\"\n";
        std::fs::write(connectors.join("c.toml"), connector).unwrap();
        let environment: Vec<_> = environment.iter().map(|(name, path)| (*name, path.to_path_buf())).collect();
        let run = move || -> Output {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_millrace"));
            command.args(["check", "--timeout", "3s", "--config"]).arg(config).arg("--connectors").arg(connectors);
            command.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR").envs(environment).output().unwrap()
        };
        let output = tokio::task::spawn_blocking(run).await.unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        println!("{said}");
        said
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ca_file_reaches_every_flow_that_asks_for_a_token() {
    let secured = Secured::start().await;
    let trusted = Some(secured.certificates.ca.as_path());
    let mut acting_for_external = secured.external();
    acting_for_external["service_account_impersonation_url"] = secured.impersonation_url().into();
    let acting_for_user = json!({
        "type": "impersonated_service_account", "service_account_impersonation_url": secured.impersonation_url(),
        "source_credentials": secured.user(),
    });
    // How many requests each takes is how the token that BigQuery is shown is known.
    let flows = [(secured.external(), 1, false), (secured.user(), 1, false), (acting_for_external, 2, true), (acting_for_user, 2, true)];
    for (account, requests, acting) in flows {
        let (asked_before, seen_before) = (secured.tokens.asked().len(), secured.rest.seen().len());
        let said = secured.check(&account, trusted, &[]).await;
        assert!(said.contains("✓ credentials: got a token"), "{account}: {said}");
        let asked = secured.tokens.asked().len();
        assert_eq!(asked - asked_before, requests, "{account}");
        let shown = if acting { impersonated(asked) } else { token(asked) };
        assert_eq!(secured.rest.seen()[seen_before], format!("Bearer {shown}"), "{account}");
    }
    assert!(secured.front.refused().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_ca_file_the_endpoint_is_not_trusted_and_it_says_what_to_do() {
    let secured = Secured::start().await;
    let said = secured.check(&secured.external(), None, &[]).await;
    assert!(said.contains("✗ credentials: no access token: "), "{said}");
    assert!(said.contains("invalid peer certificate") && said.contains("name its authority's certificate in [worker] ca_file"), "{said}");
    assert!(secured.tokens.asked().is_empty() && !secured.front.refused().is_empty());
}

/// `SSL_CERT_FILE` replaces the system's authorities; with a `ca_file`, what it names is trusted beside that.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_user_s_own_variables_name_stays_trusted() {
    let secured = Secured::start().await;
    let (_other_folder, other) = authority();
    let said = secured.check(&secured.external(), Some(&other.ca), &[("SSL_CERT_FILE", &secured.certificates.ca)]).await;
    assert!(said.contains("✓ credentials: got a token"), "{said}");
    let said = secured.check(&secured.external(), Some(&secured.certificates.ca), &[("SSL_CERT_FILE", &other.ca)]).await;
    assert!(said.contains("✓ credentials: got a token"), "{said}");
    // Inherited from a process whose bundle this one cannot see: made anew.
    let gone = Path::new("/proc/self/fd/999");
    let environment = [("SSL_CERT_FILE", gone), ("MILLRACE_CA_FILE_IN_BUNDLE", secured.certificates.ca.as_path())];
    let said = secured.check(&secured.external(), Some(&secured.certificates.ca), &environment).await;
    assert!(said.contains("✓ credentials: got a token"), "{said}");
}
