//! What rdkafka's safe interface cannot tell: the topic's id, and headers whose names are not UTF-8.
//!
//! The only place with `unsafe` code. Everything that the C library hands out is checked for null and copied before its
//! owner is destroyed.
#![allow(unsafe_code, reason = "calls into librdkafka that rdkafka does not wrap")]

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::client::{Client, ClientContext};
use rdkafka::message::BorrowedMessage;

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

/// Kafka's id of a topic, as Kafka's own tools write it. `None` when the topic does not exist, the cluster does not know ids, or nothing was
/// answered within `timeout`.
pub fn topic_id<C: ClientContext>(client: &Client<C>, topic: &str, timeout: Duration) -> Option<String> {
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
        let event =
            Owned::new(rd::rd_kafka_queue_poll(queue.0, timeout_ms.saturating_add(500)), rd::rd_kafka_event_destroy)?;
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
        if rd::rd_kafka_error_code(rd::rd_kafka_TopicDescription_error(description))
            != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
        {
            return None;
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
        (text.bytes().any(|byte| byte != b'A')).then(|| text.replace('/', "_").replace('+', "-"))
    }
}

/// Appends the headers of a message to an arena. Bytes of a name that are not UTF-8 are replaced: nobody but the producer
/// decides what stands there, and rdkafka's own accessor panics on it.
pub fn append_headers(message: &BorrowedMessage<'_>, arena: &mut Vec<u8>) {
    let mut headers = ptr::null_mut();
    // SAFETY: the message, and with it headers, names and values, lives until this function returns; pointers are checked
    // for null; the library says how long a value is.
    unsafe {
        if rd::rd_kafka_message_headers(message.ptr(), &mut headers)
            != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
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
