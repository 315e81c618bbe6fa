// What the stream tells the layers above.

import type { Heartbeat } from "../wire/control";
import type { DecodedFrame } from "../wire/frame";

export type ConnectionStatus =
  | { state: "connecting"; attempt: number }
  | { state: "catching_up" }
  | { state: "live" }
  | { state: "waiting"; untilMs: number; attempt: number; reason: string }
  | { state: "stopped"; reason: string };

export interface PartitionStart {
  partition: number;
  from: bigint;
  low: bigint;
  next: bigint;
}

export type StreamEvent =
  | { type: "status"; status: ConnectionStatus }
  | {
      type: "welcome";
      topic: string;
      epoch: string;
      heartbeatMs: number;
      resumed: boolean;
      partitions: PartitionStart[];
    }
  /** A frame in order, checked. `waitedMs` is the time from its arrival at the page to here. */
  | { type: "data"; frame: DecodedFrame; waitedMs: number }
  | { type: "partition_added"; start: PartitionStart }
  | { type: "reset"; partition: number; reason: string; before: bigint | null; nextOffset: bigint }
  /** Offsets that were not received and that nothing of the server explains, or that the user jumped over. */
  | { type: "hole"; partition: number; first: bigint; next: bigint; reason: "unexplained" | "jumped" }
  | { type: "caught_up"; capped: boolean }
  | { type: "heartbeat"; heartbeat: Heartbeat }
  | { type: "backlog"; frames: number; bytes: number }
  | { type: "notice"; level: "warning" | "error"; topic: NoticeTopic; text: string };

export type NoticeTopic = "protocol" | "decoder" | "storage" | "server" | "connection";
