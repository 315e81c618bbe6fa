//! The calls into librdkafka that rdkafka does not offer: the topic's id, many records per call, headers of any name.
//!
//! The only place with `unsafe` code. Everything that the C library hands out is checked for null and copied before its
//! owner is destroyed.
#![allow(unsafe_code, reason = "calls into librdkafka that rdkafka does not wrap")]

use std::ffi::{CStr, CString, c_char, c_int};
use std::marker::PhantomData;
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::BorrowedMessage;

use super::errors::{ErrorType, classify};
use crate::pipeline::record::encode_header;

/// Destroys a C object when it goes out of scope.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Owned<T> {
    fn new(pointer: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        (!pointer.is_null()).then_some(Self(pointer, destroy))
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer is not null, came from the matching constructor and is destroyed here only.
        unsafe { (self.1)(self.0) }
    }
}

/// What Kafka said when it was asked for the id of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicId {
    /// The id, as Kafka's own tools write it.
    Is(String),
    /// The cluster answered that the topic has none.
    Unknown,
    /// Nothing was answered in time, or the question itself was refused: perhaps the cluster does not know ids.
    Unanswered,
    /// Something else went wrong, which says nothing about ids.
    Failed,
}

/// Kafka's id of a topic, at most `timeout` and half a second later.
pub fn topic_id<C: ClientContext>(client: &Client<C>, topic: &str, timeout: Duration) -> TopicId {
    describe_topic(client, topic, timeout).unwrap_or(TopicId::Failed)
}

/// `None`: the client library cannot ask, or answers something that it never should.
fn describe_topic<C: ClientContext>(client: &Client<C>, topic: &str, timeout: Duration) -> Option<TopicId> {
    let name = CString::new(topic).ok()?;
    let timeout_ms = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    let native = client.native_ptr();
    // SAFETY: `native` lives as long as `client`; every object made here is checked for null and destroyed by `Owned` in
    // reverse order of creation; strings are copied while the event that owns them is alive.
    unsafe {
        let mut names: [*const c_char; 1] = [name.as_ptr()];
        let topics = Owned::new(
            rd::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()),
            rd::rd_kafka_TopicCollection_destroy,
        )?;
        let options = Owned::new(
            rd::rd_kafka_AdminOptions_new(native, rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS),
            rd::rd_kafka_AdminOptions_destroy,
        )?;
        rd::rd_kafka_AdminOptions_set_request_timeout(options.0, timeout_ms, ptr::null_mut(), 0);
        let queue = Owned::new(rd::rd_kafka_queue_new(native), rd::rd_kafka_queue_destroy)?;
        rd::rd_kafka_DescribeTopics(native, topics.0, options.0, queue.0);
        let event = rd::rd_kafka_queue_poll(queue.0, timeout_ms.saturating_add(500));
        let Some(event) = Owned::new(event, rd::rd_kafka_event_destroy) else { return Some(TopicId::Unanswered) };
        if let Some(failed) = without_id(rd::rd_kafka_event_error(event.0)) {
            return Some(failed);
        }
        let result = rd::rd_kafka_event_DescribeTopics_result(event.0);
        if result.is_null() {
            return None;
        }
        let mut count = 0;
        let descriptions = rd::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if descriptions.is_null() || count != 1 {
            return None;
        }
        let description = *descriptions;
        if let Some(failed) = without_id(rd::rd_kafka_error_code(rd::rd_kafka_TopicDescription_error(description))) {
            return Some(failed);
        }
        let id = rd::rd_kafka_TopicDescription_topic_id(description);
        if id.is_null() {
            return None;
        }
        let text = rd::rd_kafka_Uuid_base64str(id);
        if text.is_null() {
            return None;
        }
        let text = CStr::from_ptr(text).to_str().ok()?;
        // The all-zero id stands for "none". Kafka itself writes ids in the alphabet that is safe in names.
        Some(if text.bytes().all(|byte| byte == b'A') {
            TopicId::Unknown
        } else {
            TopicId::Is(text.replace('/', "_").replace('+', "-"))
        })
    }
}

/// What an error says about ids; `None` when it is none. A cluster that does not know the question leaves it unanswered,
/// or refuses it; what every question meets while brokers, leaders or the topic are away is no sign of that.
fn without_id(error: rd::rd_kafka_resp_err_t) -> Option<TopicId> {
    match RDKafkaErrorCode::from(error) {
        RDKafkaErrorCode::NoError => None,
        code => Some(match classify(code) {
            Some(
                ErrorType::DnsFailure
                | ErrorType::BrokerDown
                | ErrorType::AllBrokersDown
                | ErrorType::Authentication
                | ErrorType::Tls
                | ErrorType::TopicMissing
                | ErrorType::Leader
                | ErrorType::Coordinator,
            ) => TopicId::Failed,
            _ => TopicId::Unanswered,
        }),
    }
}

/// The queue of a consumer, to take many records from it at once. It shares the consumer's queue; whatever is not a record
/// is passed over, so [`BaseConsumer::poll`](rdkafka::consumer::BaseConsumer::poll) has to be called regularly as well.
pub struct ReadyQueue<'a> {
    queue: Owned<rd::rd_kafka_queue_t>,
    ready: Vec<*mut rd::rd_kafka_message_t>,
    consumer: PhantomData<&'a ()>,
}

/// A record that librdkafka holds.
pub struct NativeRecord<'a>(&'a rd::rd_kafka_message_t);

impl std::fmt::Debug for ReadyQueue<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadyQueue").field("ready", &self.ready.len()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for NativeRecord<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NativeRecord").field("offset", &self.0.offset).finish_non_exhaustive()
    }
}

/// Destroys the records of one call that were not destroyed yet, also when one of them makes the caller panic.
struct Taken<'a> {
    messages: &'a [*mut rd::rd_kafka_message_t],
    done: usize,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        for message in self.messages.iter().skip(self.done) {
            // SAFETY: the library handed these out, and each is destroyed once.
            unsafe { rd::rd_kafka_message_destroy(*message) }
        }
    }
}

impl<'a> ReadyQueue<'a> {
    /// The queue of `consumer`, from which up to `limit` records are taken per call.
    pub fn new<C: ConsumerContext>(consumer: &'a BaseConsumer<C>, limit: usize) -> Option<Self> {
        // SAFETY: the consumer outlives the queue by the lifetime; null is checked.
        let queue = unsafe { rd::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        let queue = Owned::new(queue, rd::rd_kafka_queue_destroy)?;
        Some(Self { queue, ready: vec![ptr::null_mut(); limit], consumer: PhantomData })
    }

    /// Takes what is there, without waiting; answers how many there were. An error of the consumer comes as its code.
    pub fn take(&mut self, mut each: impl FnMut(Result<NativeRecord<'_>, RDKafkaErrorCode>)) -> usize {
        // SAFETY: the array has room for as many pointers as is said; the library fills the first `count` with messages
        // that live until they are destroyed, which is done after their use here or by `Taken`.
        unsafe {
            let count = rd::rd_kafka_consume_batch_queue(self.queue.0, 0, self.ready.as_mut_ptr(), self.ready.len());
            let count = usize::try_from(count).unwrap_or(0);
            let mut taken = Taken { messages: self.ready.get(..count).unwrap_or(&[]), done: 0 };
            for message in taken.messages {
                let record = &**message;
                if record.err == rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                    each(Ok(NativeRecord(record)));
                } else {
                    each(Err(record.err.into()));
                }
                taken.done += 1;
                rd::rd_kafka_message_destroy(*message);
            }
            count
        }
    }
}

impl NativeRecord<'_> {
    /// Its partition.
    pub fn partition(&self) -> i32 {
        self.0.partition
    }

    /// Its offset.
    pub fn offset(&self) -> i64 {
        self.0.offset
    }

    /// Its timestamp in Unix milliseconds, 0 when there is none.
    pub fn timestamp_ms(&self) -> i64 {
        let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is alive.
        unsafe { rd::rd_kafka_message_timestamp(self.0, &mut kind) }.max(0)
    }

    /// Its key.
    pub fn key(&self) -> Option<&[u8]> {
        // SAFETY: the library says how many bytes lie there while the message is alive.
        (!self.0.key.is_null()).then(|| unsafe { std::slice::from_raw_parts(self.0.key.cast(), self.0.key_len) })
    }

    /// Its value.
    pub fn value(&self) -> Option<&[u8]> {
        // SAFETY: as for the key.
        (!self.0.payload.is_null()).then(|| unsafe { std::slice::from_raw_parts(self.0.payload.cast(), self.0.len) })
    }

    /// Appends its headers to an arena.
    pub fn append_headers(&self, arena: &mut Vec<u8>) {
        // SAFETY: the message is alive.
        unsafe { append_native_headers(self.0, arena) }
    }
}

/// Appends the headers of a message to an arena. Bytes of a name that are not UTF-8 are replaced: nobody but the producer
/// decides what stands there, and rdkafka's own accessor panics on it.
pub fn append_headers(message: &BorrowedMessage<'_>, arena: &mut Vec<u8>) {
    // SAFETY: the message is alive.
    unsafe { append_native_headers(message.ptr(), arena) }
}

/// # Safety
/// `message` must be alive.
unsafe fn append_native_headers(message: *const rd::rd_kafka_message_t, arena: &mut Vec<u8>) {
    let mut headers = ptr::null_mut();
    // SAFETY: the message, and with it headers, names and values, lives until this function returns; pointers are checked
    // for null; the library says how long a value is.
    unsafe {
        if rd::rd_kafka_message_headers(message, &mut headers) != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
            || headers.is_null()
        {
            return;
        }
        for index in 0..rd::rd_kafka_header_cnt(headers) {
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            let found = rd::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut size);
            if found != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR || name.is_null() {
                return;
            }
            let value = (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), size));
            encode_header(arena, &CStr::from_ptr(name).to_string_lossy(), value);
        }
    }
}
