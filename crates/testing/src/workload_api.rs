//! An agent that serves the SPIFFE Workload API, well or badly.
//!
//! It speaks gRPC by tonic and encodes by prost, so the tested program is held against
//! implementations that share no code with its own.

use std::collections::HashMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use bytes::{BufMut, Bytes};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, ServerStreamingService};
use tonic::{Code, Request, Response, Status};

use crate::ca::{Authority, Issued};

/// What the agent says to whoever calls.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A message: [`Identities::encode`], or bytes that are none.
    Message(Vec<u8>),
    /// This code, by its number, and text at once.
    Refusal(i32, &'static str),
    /// Nothing, while the call stays open.
    Silence,
    /// HTTP with this content type and body, whatever gRPC wants.
    Http(&'static str, Vec<u8>),
}

/// The contents of a message: identities, and the bundles of other trust domains.
#[derive(Clone, Default)]
#[must_use]
pub struct Identities(X509SvidResponse);

#[derive(Clone, PartialEq, Message)]
struct X509SvidResponse {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<X509Svid>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    crl: Vec<Vec<u8>>,
    #[prost(map = "string, bytes", tag = "3")]
    federated_bundles: HashMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct X509Svid {
    #[prost(string, tag = "1")]
    spiffe_id: String,
    #[prost(bytes = "vec", tag = "2")]
    x509_svid: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    x509_svid_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    bundle: Vec<u8>,
    #[prost(string, tag = "5")]
    hint: String,
}

impl Identities {
    /// One identity, and the authority of its trust domain.
    pub fn of(id: &str, svid: &Issued, authority: &Authority) -> Self {
        Self::default().and(id, svid, authority)
    }

    /// Another identity.
    pub fn and(self, id: &str, svid: &Issued, authority: &Authority) -> Self {
        self.hinted("", id, svid, authority)
    }

    /// Another identity, with a hint at what it is for.
    pub fn hinted(mut self, hint: &str, id: &str, svid: &Issued, authority: &Authority) -> Self {
        self.0.svids.push(X509Svid {
            spiffe_id: id.to_owned(),
            x509_svid: svid.chain().iter().flat_map(|one| one.to_vec()).collect(),
            x509_svid_key: svid.key_der().to_vec(),
            bundle: authority.der().to_vec(),
            hint: hint.to_owned(),
        });
        self
    }

    /// The authority of another trust domain; of two for one domain the last one stays.
    pub fn federated(mut self, trust_domain: &str, authority: &Authority) -> Self {
        self.0
            .federated_bundles
            .insert(trust_domain.to_owned(), authority.der().to_vec());
        self
    }

    /// As the agent sends it.
    pub fn encode(&self) -> Vec<u8> {
        self.0.encode_to_vec()
    }

    /// As an answer.
    pub fn answer(&self) -> Answer {
        Answer::Message(self.encode())
    }
}

/// A running agent, or one that may be started again. Gone when dropped.
pub struct Agent {
    place: Place,
    answers: watch::Sender<Answer>,
    calls: Arc<AtomicUsize>,
    server: Mutex<Option<Server>>,
}

#[derive(Debug, Clone)]
enum Place {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

struct Server {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Agent {
    /// An agent at `agent.sock` in this directory.
    pub fn unix(directory: &Path, answer: Answer) -> Self {
        let agent = Self::absent(directory, answer);
        agent.start();
        agent
    }

    /// The same, but not started yet.
    pub fn absent(directory: &Path, answer: Answer) -> Self {
        Self::at(Place::Unix(directory.join("agent.sock")), answer)
    }

    /// An agent at a TCP port of 127.0.0.1.
    pub fn tcp(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the kernel has a free port");
        let address = listener.local_addr().expect("bound");
        let agent = Self::at(Place::Tcp(address), answer);
        agent.serve(Listener::Tcp(listener));
        agent
    }

    fn at(place: Place, answer: Answer) -> Self {
        Self {
            place,
            answers: watch::Sender::new(answer),
            calls: Arc::default(),
            server: Mutex::new(None),
        }
    }

    /// Its address, as `--use-workload-api-addr` takes it.
    pub fn uri(&self) -> String {
        match &self.place {
            Place::Unix(path) => format!("unix://{}", path.display()),
            Place::Tcp(address) => format!("tcp://{address}"),
        }
    }

    /// What it says from now on, to open calls too.
    pub fn answer(&self, answer: Answer) {
        self.answers.send_replace(answer);
    }

    /// How many calls it got.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Starts it, for the first time or once more.
    pub fn start(&self) {
        let listener = match &self.place {
            Place::Unix(path) => {
                let _ = fs::remove_file(path);
                Listener::Unix(UnixListener::bind(path).expect("a free path"))
            }
            Place::Tcp(address) => Listener::Tcp(TcpListener::bind(address).expect("still free")),
        };
        self.serve(listener);
    }

    /// Kills it: its connections end, and new ones are refused.
    pub fn stop(&self) {
        let server = self.server.lock().expect("no holder panics").take();
        if let Some(server) = server {
            let _ = server.stop.send(());
            server.thread.join().expect("the agent does not panic");
        }
        if let Place::Unix(path) = &self.place {
            let _ = fs::remove_file(path);
        }
    }

    fn serve(&self, listener: Listener) {
        let (stop, stopped) = oneshot::channel();
        let (answers, calls) = (self.answers.subscribe(), Arc::clone(&self.calls));
        let thread = thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread()
                .enable_io()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                tokio::select! {
                    () = listener.accept_all(answers, calls) => {}
                    _ = stopped => {}
                }
            });
            // Dropping the runtime drops every connection.
        });
        *self.server.lock().expect("no holder panics") = Some(Server { stop, thread });
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop();
    }
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    async fn accept_all(self, answers: watch::Receiver<Answer>, calls: Arc<AtomicUsize>) {
        match self {
            Self::Unix(listener) => {
                listener.set_nonblocking(true).expect("a socket");
                let listener = tokio::net::UnixListener::from_std(listener).expect("a runtime with I/O");
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(talk(TokioIo::new(stream), answers.clone(), Arc::clone(&calls)));
                }
            }
            Self::Tcp(listener) => {
                listener.set_nonblocking(true).expect("a socket");
                let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime with I/O");
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(talk(TokioIo::new(stream), answers.clone(), Arc::clone(&calls)));
                }
            }
        }
    }
}

async fn talk(stream: impl Read + Write + Unpin, answers: watch::Receiver<Answer>, calls: Arc<AtomicUsize>) {
    let service = service_fn(move |request| {
        let answers = answers.clone();
        calls.fetch_add(1, Ordering::SeqCst);
        async move { Ok::<_, Status>(respond(request, answers).await) }
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    // The tested program may go away at any time.
    let _ = connection.serve_connection(stream, service).await;
}

async fn respond(
    request: hyper::Request<Incoming>,
    answers: watch::Receiver<Answer>,
) -> hyper::Response<Body> {
    if request.uri().path() != "/SpiffeWorkloadAPI/FetchX509SVID" {
        return Status::new(Code::Unimplemented, "no such method").into_http();
    }
    let answer = answers.borrow().clone();
    if let Answer::Http(kind, body) = answer {
        let body = Full::new(Bytes::from(body)).map_err(|never| match never {});
        let mut response = hyper::Response::new(Body::new(body));
        let kind = kind.try_into().expect("a header's value");
        response.headers_mut().insert("content-type", kind);
        return response;
    }
    Grpc::new(RawCodec)
        .server_streaming(Method(answers), request)
        .await
}

/// `FetchX509SVID`.
struct Method(watch::Receiver<Answer>);

type Messages = ReceiverStream<Result<Vec<u8>, Status>>;
type Answered = Pin<Box<dyn Future<Output = Result<Response<Messages>, Status>> + Send>>;

impl ServerStreamingService<Vec<u8>> for Method {
    type Response = Vec<u8>;
    type ResponseStream = Messages;
    type Future = Answered;

    fn call(&mut self, request: Request<Vec<u8>>) -> Answered {
        let mut answers = self.0.clone();
        Box::pin(async move {
            // What keeps browsers from calling.
            let header = request.metadata().get("workload.spiffe.io");
            if header.is_none_or(|value| value != "true") {
                return Err(Status::invalid_argument("security header missing from request"));
            }
            if !request.get_ref().is_empty() {
                return Err(Status::invalid_argument("the request has no fields"));
            }
            if let Answer::Refusal(code, text) = &*answers.borrow_and_update() {
                return Err(Status::new(Code::from_i32(*code), *text));
            }
            let (sender, receiver) = mpsc::channel(1);
            tokio::spawn(push(answers, sender));
            Ok(Response::new(ReceiverStream::new(receiver)))
        })
    }
}

/// Sends the answer, and each one that replaces it.
async fn push(mut answers: watch::Receiver<Answer>, sender: mpsc::Sender<Result<Vec<u8>, Status>>) {
    loop {
        let answer = answers.borrow_and_update().clone();
        let item = match answer {
            Answer::Message(bytes) => Some(Ok(bytes)),
            Answer::Refusal(code, text) => Some(Err(Status::new(Code::from_i32(code), text))),
            Answer::Silence | Answer::Http(..) => None,
        };
        let is_last = matches!(item, Some(Err(_)));
        if let Some(item) = item
            && (sender.send(item).await.is_err() || is_last)
        {
            return;
        }
        tokio::select! {
            changed = answers.changed() => if changed.is_err() {
                return;
            },
            () = sender.closed() => return,
        }
    }
}

/// Messages as they are: some are none.
#[derive(Clone, Copy)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for RawCodec {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        use bytes::Buf;
        let length = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(length).to_vec()))
    }
}
