//! Messages over a TCP connection that only who knows the secret can have: Noise (NNpsk0, X25519, ChaCha20-Poly1305, SHA-256; the
//! crate `snow`). Each record is authenticated under a number of its own, so that nothing can be repeated, left out or put in; keys
//! are made anew for each connection, so that a secret that leaks later opens nothing of before.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use snow::{Builder, HandshakeState, TransportState};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::message::{LONGEST, Message};
use crate::secret;

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_SHA256";
/// What both ends have to begin with, or they are of protocols that do not fit.
const PROLOGUE: &[u8] = b"lb cluster";
/// Longest record on the wire, bytes (Noise, section 3).
const RECORD: usize = 65_535;
/// What authentication adds to each record.
const TAG: usize = 16;
/// Fewest characters of a secret.
const SHORTEST: usize = 16;

/// The key that the nodes of a cluster share.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// The key that a text stands for.
    pub fn of(text: &str) -> Self {
        let salted = [PROLOGUE, b"\0", text.as_bytes()].concat();
        let digest = ring::digest::digest(&ring::digest::SHA256, &salted);
        let mut key = [0; 32];
        key.copy_from_slice(digest.as_ref());
        Self(key)
    }

    /// That of a file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = secret::read(path)?;
        if text.chars().count() < SHORTEST {
            return Err(format!(
                "{}: shorter than {SHORTEST} characters: `openssl rand -hex 32` makes a good one",
                path.display()
            ));
        }
        Ok(Self::of(&text))
    }
}

/// Why there is no channel (any more).
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// TCP's word.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What came was not made with the same secret.
    #[error("another secret, or no lb at the other end")]
    Secret,
    /// What came was made with the secret and is no message.
    #[error("a message that cannot be read: the other node speaks another version")]
    Garbage,
}

/// The sending half.
pub struct Sender {
    stream: OwnedWriteHalf,
    noise: Arc<Mutex<TransportState>>,
}

/// The receiving half.
pub struct Receiver {
    stream: OwnedReadHalf,
    noise: Arc<Mutex<TransportState>>,
    /// Decrypted bytes that are no whole message yet.
    open: Vec<u8>,
}

fn builder(secret: &Secret) -> Result<Builder<'_>, ChannelError> {
    let pattern = PATTERN.parse().map_err(|_| ChannelError::Secret)?;
    Builder::new(pattern)
        .prologue(PROLOGUE)
        .and_then(|builder| builder.psk(0, &secret.0))
        .map_err(|_| ChannelError::Secret)
}

/// A channel over a connection that was dialled.
pub async fn connect(
    mut stream: TcpStream,
    secret: &Secret,
) -> Result<(Sender, Receiver), ChannelError> {
    let mut noise = builder(secret)?.build_initiator().map_err(|_| ChannelError::Secret)?;
    say(&mut stream, &mut noise).await?;
    hear(&mut stream, &mut noise).await?;
    split(stream, noise)
}

/// A channel over a connection that was accepted. Who does not know the secret gets no byte back.
pub async fn accept(
    mut stream: TcpStream,
    secret: &Secret,
) -> Result<(Sender, Receiver), ChannelError> {
    let mut noise = builder(secret)?.build_responder().map_err(|_| ChannelError::Secret)?;
    hear(&mut stream, &mut noise).await?;
    say(&mut stream, &mut noise).await?;
    split(stream, noise)
}

async fn say(stream: &mut TcpStream, noise: &mut HandshakeState) -> Result<(), ChannelError> {
    let mut bytes = [0; 128];
    let length = noise.write_message(&[], &mut bytes).map_err(|_| ChannelError::Secret)?;
    let record = [&(length as u16).to_be_bytes()[..], &bytes[..length]].concat();
    Ok(stream.write_all(&record).await?)
}

async fn hear(stream: &mut TcpStream, noise: &mut HandshakeState) -> Result<(), ChannelError> {
    let length = usize::from(stream.read_u16().await?);
    let mut bytes = [0; 128];
    let bytes = bytes.get_mut(..length).ok_or(ChannelError::Secret)?;
    stream.read_exact(bytes).await?;
    noise.read_message(bytes, &mut [0; 128]).map_err(|_| ChannelError::Secret)?;
    Ok(())
}

fn split(stream: TcpStream, noise: HandshakeState) -> Result<(Sender, Receiver), ChannelError> {
    let noise = noise.into_transport_mode().map_err(|_| ChannelError::Secret)?;
    let noise = Arc::new(Mutex::new(noise));
    let (read, write) = stream.into_split();
    let sender = Sender { stream: write, noise: noise.clone() };
    Ok((sender, Receiver { stream: read, noise, open: Vec::new() }))
}

impl Sender {
    /// Sends messages, in as few records as they fit. Returns bytes on the wire.
    pub async fn send(&mut self, messages: &[Message]) -> Result<usize, ChannelError> {
        let mut plain = Vec::new();
        for message in messages {
            let bytes = message.encode();
            plain.extend((bytes.len() as u32).to_be_bytes());
            plain.extend(bytes);
        }
        let wire = self.seal(&plain)?;
        self.stream.write_all(&wire).await?;
        Ok(wire.len())
    }

    fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, ChannelError> {
        let mut wire = Vec::with_capacity(plain.len() + 64);
        let mut record = vec![0; RECORD];
        let mut noise = self.noise.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in plain.chunks(RECORD - TAG) {
            let length =
                noise.write_message(chunk, &mut record).map_err(|_| ChannelError::Secret)?;
            wire.extend((length as u16).to_be_bytes());
            wire.extend_from_slice(&record[..length]);
        }
        Ok(wire)
    }
}

impl Receiver {
    /// The next message, and how many bytes of the wire were read for it. Not to be dropped before it is done, unless the channel is
    /// given up.
    pub async fn receive(&mut self) -> Result<(Message, usize), ChannelError> {
        let mut read = 0;
        loop {
            if let Some(message) = self.next_open()? {
                return Ok((message, read));
            }
            let length = usize::from(self.stream.read_u16().await?);
            let mut record = vec![0; length];
            self.stream.read_exact(&mut record).await?;
            let mut plain = vec![0; length];
            let mut noise = self.noise.lock().unwrap_or_else(PoisonError::into_inner);
            let length =
                noise.read_message(&record, &mut plain).map_err(|_| ChannelError::Secret)?;
            self.open.extend_from_slice(&plain[..length]);
            read += record.len() + 2;
        }
    }

    fn next_open(&mut self) -> Result<Option<Message>, ChannelError> {
        let Some((head, rest)) = self.open.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*head) as usize;
        if length > LONGEST {
            return Err(ChannelError::Garbage);
        }
        let Some(bytes) = rest.get(..length) else { return Ok(None) };
        let message = Message::decode(bytes).ok_or(ChannelError::Garbage)?;
        self.open.drain(..4 + length);
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tokio::net::TcpListener;

    use super::*;
    use crate::cluster::message::Hello;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (dialled, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn messages_arrive_whole_and_in_order_however_long() {
        let (dialled, accepted) = pair().await;
        let secret = Secret::of("a secret that both know");
        let (near, far) = tokio::join!(connect(dialled, &secret), accept(accepted, &secret));
        let ((mut sender, _back), (_, mut receiver)) = (near.unwrap(), far.unwrap());
        let long = Message::Hello(Hello { node: "x".repeat(200_000), ..Hello::default() });
        let messages = [Message::Beat(1), long, Message::Whole];
        let sent = messages.clone();
        let writer = tokio::spawn(async move { sender.send(&sent).await.map(|_| sender) });
        for message in &messages {
            assert_eq!(receiver.receive().await.unwrap().0, *message);
        }
        drop(writer.await.unwrap());
    }

    #[tokio::test]
    async fn another_secret_opens_nothing_and_gets_no_answer() {
        let (dialled, accepted) = pair().await;
        let (ours, theirs) = (Secret::of("ours"), Secret::of("theirs"));
        let (near, far) = tokio::join!(connect(dialled, &theirs), accept(accepted, &ours));
        assert!(matches!(far.err(), Some(ChannelError::Secret)));
        assert!(matches!(near.err(), Some(ChannelError::Io(_))), "the connection just ends");
    }

    /// Who sits between the nodes can cut the connection, and no more.
    #[tokio::test]
    async fn what_is_changed_or_repeated_on_the_way_is_refused() {
        for repeat in [false, true] {
            let (dialled, accepted) = pair().await;
            let secret = Secret::of("a secret that both know");
            let (near, far) = tokio::join!(connect(dialled, &secret), accept(accepted, &secret));
            let ((mut sender, _back), (_, mut receiver)) = (near.unwrap(), far.unwrap());
            let plain = [&9u32.to_be_bytes()[..], &Message::Whole.encode()].concat();
            let mut wire = sender.seal(&plain).unwrap();
            match repeat {
                true => wire.extend(wire.clone()),
                false => wire[5] ^= 1,
            }
            sender.stream.write_all(&wire).await.unwrap();
            assert!(matches!(receiver.receive().await, Err(ChannelError::Secret)), "{repeat}");
        }
    }

    #[tokio::test]
    async fn who_knows_the_secret_and_talks_garbage_is_refused() {
        for bytes in [&[0xffu8; 40][..], &[0, 0, 0, 3, 99, 99, 99][..]] {
            let (dialled, accepted) = pair().await;
            let secret = Secret::of("a secret that both know");
            let (near, far) = tokio::join!(connect(dialled, &secret), accept(accepted, &secret));
            let ((mut sender, _back), (_, mut receiver)) = (near.unwrap(), far.unwrap());
            let wire = sender.seal(bytes).unwrap();
            sender.stream.write_all(&wire).await.unwrap();
            assert!(matches!(receiver.receive().await, Err(ChannelError::Garbage)));
        }
    }

    #[test]
    fn short_secrets_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        for (text, good) in [("0123456789abcde", false), ("0123456789abcdef", true)] {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            assert_eq!(Secret::read(&path).is_ok(), good);
        }
    }
}
