//! A credential provider plugin as kubelets execute it: it has one password, for whatever image it is asked about. The
//! tests compile it, with nothing but the compiler, into a static program, since there is nothing else in an agent's pod.

use std::env::var;
use std::io::Read;

fn main() {
    let mut request = String::new();
    std::io::stdin().read_to_string(&mut request).expect("standard input");
    assert!(request.contains(r#""kind":"CredentialProviderRequest""#), "not a request");
    let setting = |name: &str| var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let (host, user, password) = (setting("REGISTRY"), setting("USER"), setting("PASSWORD"));
    println!(
        r#"{{"kind": "CredentialProviderResponse", "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
            "cacheKeyType": "Registry", "cacheDuration": "1m",
            "auth": {{"{host}": {{"username": "{user}", "password": "{password}"}}}}}}"#
    );
}
