//! NVLink, link by link.

use belfry_common::model::Reason;

use super::{
    activity::read_fields,
    gpu::{Asked, Gpu, Series as _},
    library::{Field, FieldValue},
    metrics::Metrics,
};
use crate::readings::Readings;

/// Links of one GPU: 18 on Hopper and Blackwell.
const LINKS_MAX: u32 = 36;

/// KiB
const KIB: u64 = 1024;

/// Reads the links of one GPU.
pub(super) fn read(gpu: &mut Gpu, metrics: &Metrics, out: &mut Readings) {
    let Some(links) = count(gpu) else { return };
    for link in 0..links {
        let name = link.to_string();
        let active = gpu.ask(Asked::Of("link_state", link), |device| device.link_is_active(link));
        if let Some(active) = active {
            gpu.flag(out, &metrics.links.link_active, &[&name], active);
        }
    }
    for link in 0..links {
        counters(gpu, link, metrics, out);
    }
    // What is counted for each link is not counted again.
    let is_of_links = |kind: &str| {
        let of_link = Field::LINK_ERRORS.iter().find(|(known, _)| *known == kind);
        of_link.is_some_and(|(_, field)| gpu.offers(Asked::Field(field.of_link(0))))
    };
    let totals: Vec<Field> =
        Field::LINKS_ERRORS.into_iter().filter(|(kind, _)| !is_of_links(kind)).map(|(_, field)| field).collect();
    read_fields(gpu, &totals, |gpu, field, value| {
        if let Some((kind, _)) = Field::LINKS_ERRORS.iter().find(|(_, known)| *known == field) {
            gpu.count(out, &metrics.links.link_errors, &["", kind], value.and_then(FieldValue::count));
        }
    });
}

/// How many links there are, of those that are up and those that are not.
fn count(gpu: &mut Gpu) -> Option<u32> {
    let mut links = None;
    read_fields(gpu, &[Field::LINK_COUNT], |_, _, value| links = value.and_then(FieldValue::count).ok());
    let links = u32::try_from(links?).ok()?.min(LINKS_MAX);
    (links > 0).then_some(links)
}

fn counters(gpu: &mut Gpu, link: u32, metrics: &Metrics, out: &mut Readings) {
    let name = link.to_string();
    let traffic = [Field::LINK_TRANSMIT.of_link(link), Field::LINK_RECEIVE.of_link(link)];
    let errors = Field::LINK_ERRORS.map(|(kind, field)| (kind, field.of_link(link)));
    let wanted: Vec<Field> = traffic.into_iter().chain(errors.map(|(_, field)| field)).collect();
    let [transmit, receive] = traffic;
    read_fields(gpu, &wanted, |gpu, field, value| {
        let count = value.and_then(FieldValue::count);
        let bytes = count.and_then(|kib| kib.checked_mul(KIB).ok_or(Reason::OutOfRange));
        if field == transmit {
            gpu.count(out, &metrics.links.link_transmit, &[&name], bytes);
        } else if field == receive {
            gpu.count(out, &metrics.links.link_receive, &[&name], bytes);
        } else if let Some((kind, _)) = errors.iter().find(|(_, known)| *known == field) {
            gpu.count(out, &metrics.links.link_errors, &[&name, kind], count);
        }
    });
}
