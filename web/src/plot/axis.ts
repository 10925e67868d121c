// How an x is shown.
import { t } from "../words";
import type { Axis } from "./plot";
import type { X } from "./series";

export const axisOf = (x: X): Axis => ({ label: t(x), time: x === "time", whole: x === "step" || x === "tokens" });
