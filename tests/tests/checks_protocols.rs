//! Checks by the other protocols against real servers, good and bad: nginx with TLS and HTTP/2, gRPC, DNS (dnsmasq), datagrams,
//! echo requests, and programs.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use lb_tests::{
    lab::{backend4, backend6},
    process::Process,
    stand::{Stand, sees},
};

/// An authority, and a certificate of its for `shop.example`: the authority's, the certificate, its key.
fn certificates(stand: &Stand) -> [PathBuf; 3] {
    let [ca, ca_key, certificate, key] =
        ["ca.pem", "ca.key", "shop.pem", "shop.key"].map(|name| stand.file(name));
    let line = format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=authority -days 99 \
         -out '{ca}' -keyout '{ca_key}' 2>&1 && \
         openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=shop.example \
         -out '{request}' -keyout '{key}' 2>&1 && \
         echo 'subjectAltName=DNS:shop.example' > '{request}.ext' && \
         openssl x509 -req -in '{request}' -CA '{ca}' -CAkey '{ca_key}' -CAcreateserial -days 23 -extfile '{request}.ext' \
         -out '{certificate}' 2>&1",
        ca = ca.display(),
        ca_key = ca_key.display(),
        request = stand.file("request").display(),
        certificate = certificate.display(),
        key = key.display(),
    );
    stand.machine().sh(&line).unwrap();
    [ca, certificate, key]
}

/// nginx: 443 = TLS with HTTP/2, 444 = TLS without it, 81 = HTTP/2 with prior knowledge.
fn nginx(stand: &Stand, certificate: &Path, key: &Path) -> Process {
    let configuration = stand.file("nginx.conf");
    let text = format!(
        "daemon off; pid {directory}/nginx.pid; error_log stderr; worker_processes 1; events {{}}\n\
         http {{ access_log off; client_body_temp_path {directory}/a; proxy_temp_path {directory}/b;\n\
         fastcgi_temp_path {directory}/c; uwsgi_temp_path {directory}/d; scgi_temp_path {directory}/e;\n\
         server {{ listen 443 ssl http2; listen 444 ssl; listen 81 http2; server_name shop.example;\n\
         ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {certificate}; ssl_certificate_key {key};\n\
         location /healthz {{ return 200 'all is well'; }} location /sick {{ return 503; }}\n\
         location /who {{ return 200 '$remote_addr $remote_port $server_protocol $http_x_token $host'; }}\n\
         location /half {{ add_header X-Load-Balancing-Endpoint-Weight 50; return 200 'half'; }} }} }}\n",
        certificate = certificate.display(),
        key = key.display(),
        directory = stand.directory.path().display(),
    );
    fs::write(&configuration, text).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-c").arg(&configuration);
    Process::start(stand.machine(), "nginx", stand.directory.path(), &command).unwrap()
}

#[test]
fn nginx_is_asked_over_tls_and_http2_and_its_certificate_is_judged() {
    let stand = Stand::new().unwrap();
    let [ca, certificate, key] = certificates(&stand);
    let server = nginx(&stand, &certificate, &key);
    let daemon = stand.daemon("type: tls, port: 443").unwrap();
    let finds = |check: &str, code: &str, words: &str| stand.finds(&daemon, check, code, words);
    sees(&daemon, "L6OK", "TLSv1.3, certificate valid for 2");
    let judged = format!(
        "type: tls, port: 443, sni: shop.example, verify: required, ca_file: {}",
        ca.display()
    );
    finds(&judged, "L6OK", "certificate valid for 2");
    finds(&judged.replace("sni: shop", "sni: other"), "L6RSP", "");
    finds("type: tls, port: 443, sni: shop.example, verify: required", "L6RSP", "");
    let https = judged.replace("type: tls", "type: https, path: /healthz");
    finds(&https, "L7OK", "200 OK");
    finds(&format!("{https}, expect: all is well"), "L7OK", "200 OK");
    finds(&format!("{https}, expect: never"), "L7RSP", "the body is not as expected");
    finds(&format!("{https}, expect_regex: '^all (is|are) well$'"), "L7OK", "200 OK");
    finds(&format!("{https}, expect_regex: '^all are'"), "L7RSP", "the body is not as expected");
    finds(&https.replace("/healthz", "/sick"), "L7STS", "503");
    finds("type: http, port: 443, path: /sick, version: h1", "L7STS", "400");

    let h2 = format!("{https}, version: h2").replace("/healthz", "/who");
    let told = format!("{h2}, headers: ['X-Token: abc'], expect: HTTP/2.0 abc shop.example");
    finds(&told, "L7OK", "200 OK");
    finds(&format!("{h2}, expect: HTTP/1.1"), "L7RSP", "the body is not as expected");
    finds(&h2.replace("port: 443", "port: 444"), "L6RSP", "");
    finds("type: http, port: 81, version: h2, path: /who, expect: HTTP/2.0", "L7OK", "200 OK");
    finds("type: http, port: 81, version: h2, path: /sick", "L7STS", "503");

    // Where from: an address and a port of lb's.
    let lb = &stand.lab.lb;
    lb.ip("addr add 10.77.0.5/24 dev lb0").unwrap();
    let who = "type: http, port: 81, version: h2, path: /who";
    finds(&format!("{who}, source: 10.77.0.5, expect: '10.77.0.5 '"), "L7OK", "200 OK");
    let fixed = format!("{who}, source: '10.77.0.5:7777', expect: '10.77.0.5 7777 '");
    finds(&fixed, "L7OK", "200 OK");
    lb.ip("addr del 10.77.0.5/24 dev lb0").unwrap();
    let gone = sees(&daemon, "SOCKERR", "Cannot assign requested address");
    assert_eq!(gone.state, "UP", "the prober's own fault");

    server.kill().unwrap();
    finds(&https, "L4CON", "refused");
}

/// grpc.health.v1 by grpcio: `good` serves, `bad` does not, others are unknown. Without a second argument, without TLS.
const GRPC: &str = r#"
import sys, grpc
from concurrent import futures
def check(request, context):
    name = request[2:].decode() if request else "good"
    if name not in ("good", "bad"):
        context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
    return b"\x08\x01" if name == "good" else b"\x08\x02"
same = lambda data: data
handlers = {} if "empty" in sys.argv else {"Check": grpc.unary_unary_rpc_method_handler(check, same, same)}
server = grpc.server(futures.ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", handlers),))
read = lambda name: open(name, "rb").read()
if len(sys.argv) > 3:
    server.add_secure_port(sys.argv[1], grpc.ssl_server_credentials([(read(sys.argv[3]), read(sys.argv[2]))]))
else:
    server.add_insecure_port(sys.argv[1])
server.start()
server.wait_for_termination()
"#;

#[test]
fn a_grpc_server_says_whether_it_serves() {
    let stand = Stand::new().unwrap();
    let [ca, certificate, key] = certificates(&stand);
    fs::write(stand.file("server.py"), GRPC).unwrap();
    let start = |name: &str, arguments: &[&str]| {
        // Debian's own, which has the package.
        let mut command = Command::new("/usr/bin/python3");
        command.arg(stand.file("server.py")).args(arguments);
        Process::start(stand.machine(), name, stand.directory.path(), &command).unwrap()
    };
    let plain = start("plain", &["0.0.0.0:50051"]);
    let paths = [&certificate, &key].map(|path| path.to_str().unwrap());
    let _secure = start("secure", &["0.0.0.0:50052", paths[0], paths[1]]);
    let _empty = start("empty", &["0.0.0.0:50053", "empty"]);

    let daemon = stand.daemon("type: grpc, port: 50051").unwrap();
    let finds = |check: &str, code: &str, words: &str| stand.finds(&daemon, check, code, words);
    sees(&daemon, "L7OK", "SERVING");
    finds("type: grpc, port: 50051, grpc_service: bad", "L7STS", "NOT_SERVING");
    finds("type: grpc, port: 50051, grpc_service: good", "L7OK", "SERVING");
    let unknown = "grpc-status 5 NOT_FOUND: unknown service";
    finds("type: grpc, port: 50051, grpc_service: shop.v1.Cart", "L7STS", unknown);
    finds("type: grpc, port: 50053", "L7STS", "grpc-status 12 UNIMPLEMENTED");
    let tls = format!("tls: true, sni: shop.example, verify: required, ca_file: {}", ca.display());
    finds(&format!("type: grpc, port: 50052, {tls}"), "L7OK", "SERVING");
    let other = tls.replace("sni: shop", "sni: other");
    finds(&format!("type: grpc, port: 50052, {other}"), "L6RSP", "");
    finds(&format!("type: grpc, port: 50051, {tls}"), "L6RSP", "");
    // A server of something else: the lab's own speaks HTTP/1.1.
    let wrong = finds("type: grpc, port: 8080", "L7RSP", "");
    assert_eq!(wrong.state, "DOWN");
    finds("type: grpc, port: 50051", "L7OK", "SERVING");
    plain.kill().unwrap();
    sees(&daemon, "L4CON", "refused");
}

#[test]
fn a_dns_server_answers_with_code_and_record() {
    let mut stand = Stand::new().unwrap();
    stand.timeout = "2s";
    let mut command = Command::new("dnsmasq");
    command.args([
        "--keep-in-foreground",
        "--no-resolv",
        "--no-hosts",
        "--user=root",
        "--conf-file=/dev/null",
    ]);
    command.args(["--address=/shop.example/192.0.2.7", "--txt-record=note.example,all is well"]);
    command.arg(format!("--pid-file={}", stand.file("pid").display()));
    let server =
        Process::start(stand.machine(), "dnsmasq", stand.directory.path(), &command).unwrap();
    let shop = "type: dns, port: 53, query: shop.example, record: A";
    let daemon = stand.daemon(shop).unwrap();
    let finds = |check: &str, code: &str, words: &str| stand.finds(&daemon, check, code, words);
    sees(&daemon, "L7OK", "noerror, 1 records");
    finds(&format!("{shop}, expect: 192.0.2.7"), "L7OK", "192.0.2.7");
    finds(&format!("{shop}, expect: 192.0.2.8"), "L7RSP", "none as expected: 192.0.2.7");
    finds(&format!("{shop}, transport: tcp, expect: 192.0.2.7"), "L7OK", "192.0.2.7");
    let note = "type: dns, port: 53, query: note.example, record: TXT, expect: all is well";
    finds(note, "L7OK", "all is well");
    // Without a server to ask, dnsmasq refuses what it does not know.
    finds("type: dns, port: 53, query: other.example", "L7STS", "refused");
    finds("type: dns, port: 53, query: other.example, rcode: refused", "L7OK", "refused");
    // Something that answers, but not to the question: the lab's own server.
    let other = finds("type: dns, port: 8080, query: shop.example", "L7TOUT", "no answer in time");
    assert_eq!(other.state, "DOWN");
    finds(shop, "L7OK", "noerror");
    server.kill().unwrap();
    let dead = sees(&daemon, "L4CON", "refused");
    assert_eq!(dead.state, "DOWN");
}

#[test]
fn datagrams_and_echo_requests_are_answered_or_not() {
    let mut stand = Stand::new().unwrap();
    // Short enough to wait for silence, long enough for a busy machine.
    stand.timeout = "2s";
    let daemon = stand.daemon("type: udp, port: 8080, send: hello, expect: web1").unwrap();
    let finds = |check: &str, code: &str, words: &str| stand.finds(&daemon, check, code, words);
    sees(&daemon, "L7OK", "web1");
    finds("type: udp, port: 8080, send_hex: 68656c6c6f, expect_regex: '^web[0-9]'", "L7OK", "web1");
    finds(
        "type: udp, port: 8080, send: hello, expect: never",
        "L7RSP",
        "not what is expected: web1",
    );
    finds("type: udp, port: 8080, send: hello", "L7OK", "answered with");
    let refused = finds("type: udp, port: 8081, send: hello", "L4CON", "refused");
    assert_eq!(refused.state, "DOWN");

    let machine = stand.machine();
    let firewall = |rule: &str| {
        machine.sh(&format!("nft add table inet t; nft add chain inet t in '{{ type filter hook input priority 0; }}'; \
             nft flush chain inet t in; {rule}")).unwrap()
    };
    firewall("nft add rule inet t in udp dport 8081 drop");
    finds("type: udp, port: 8081, send: hello", "L4OK", "no answer, and no refusal");
    finds("type: udp, port: 8081, send: hello, expect: web1", "L7TOUT", "no answer in time");

    finds("type: icmp", "L4OK", "echo reply");
    firewall("nft add rule inet t in icmp type echo-request drop");
    let silent = sees(&daemon, "L4TOUT", "no echo reply in time");
    assert_eq!(silent.state, "DOWN");
    firewall(
        "nft add rule inet t in icmp type echo-request reject with icmp type admin-prohibited",
    );
    sees(&daemon, "L4CON", "");
    firewall("true");
    sees(&daemon, "L4OK", "echo reply");
    // Over IPv6, and with a raw socket where ping sockets are not allowed.
    let v6 = stand
        .yaml("type: icmp")
        .replace("10.77.0.80", "'fd77::80'")
        .replace(&backend4(1).to_string(), &backend6(1).to_string());
    for groups in ["0 2147483647", "1 0"] {
        stand.lab.lb.sh(&format!("echo {groups} > /proc/sys/net/ipv4/ping_group_range")).unwrap();
        finds("type: tcp, port: 8080", "L4OK", "connected");
        finds("type: icmp", "L4OK", "echo reply");
        daemon.write(&v6).unwrap();
        daemon.must(&["reload"]);
        sees(&daemon, "L4OK", "echo reply");
    }
    machine.ip("addr del fd77::11/64 dev e0").unwrap();
    let status = daemon.wait("nobody answers for the address", lb_tests::stand::LONG, |status| {
        lb_tests::daemon::backend(status, "web", "web1").is_some_and(|web1| web1.state == "DOWN")
    });
    println!("{:?}", lb_tests::daemon::backend(&status, "web", "web1"));
}

#[test]
fn a_program_of_the_operator_s_decides() {
    let mut stand = Stand::new().unwrap();
    stand.timeout = "2s";
    let path = stand.file("check");
    let write = |text: &str| {
        let aside = stand.file("check.new");
        fs::write(&aside, format!("#!/bin/bash\n{text}\n")).unwrap();
        fs::set_permissions(&aside, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&aside, &path).unwrap();
    };
    // It asks the backend's own server, as a real one would.
    let real = "exec 3<>/dev/tcp/$LB_BACKEND_ADDRESS/8080 || { echo nobody is there; exit 7; }\n\
         printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3; read -r line <&3\n\
         echo \"$LB_SERVICE/$LB_BACKEND $LB_VIP:$LB_VIP_PORT $LB_BACKEND_PORT $1 ${line//[$'\\r']}\"\n\
         [[ $line == *200* ]]";
    write(real);
    let check = format!("type: exec, port: 9, command: {}, arguments: [deep]", path.display());
    let daemon = stand.daemon(&check).unwrap();
    sees(&daemon, "PROCOK", "web/web1 10.77.0.80:80 9 deep HTTP/1.1 200");
    let server = stand.lab.servers[0].as_ref().unwrap();
    server.healthy.store(false, std::sync::atomic::Ordering::Relaxed);
    let sick = sees(&daemon, "PROCERR", "exit status 1: web/web1");
    assert_eq!(sick.state, "DOWN");
    server.healthy.store(true, std::sync::atomic::Ordering::Relaxed);
    sees(&daemon, "PROCOK", "200");
    write("echo thinking; sleep 600 & wait");
    let late = sees(&daemon, "PROCTOUT", "killed after 2s: thinking");
    assert_eq!(late.state, "DOWN");
    write(real);
    sees(&daemon, "PROCOK", "200");
    // What lb will not run is not the backend's fault.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    let ours = sees(&daemon, "SOCKERR", "chmod go-w");
    assert_eq!(ours.state, "UP");
    // Nothing is left of the programs: neither processes nor zombies.
    let pid = daemon.pid().unwrap();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    assert_eq!(children.trim(), "");
}
