// Every text of the page, in English and Korean. {name} stands for a value; of "one|many" the first is for 1.

export const en = {
  title: "Incidents", skip: "Go to the list",
  pause: "Pause", play: "Play", sound: "Sound", soundHint: "A sound for each new CRITICAL incident",
  notify: "Notify", notifyHint: "A notification for each new CRITICAL incident", notifyDenied: "This browser does not allow notifications for this page",
  theme: "Theme", "theme.auto": "Auto", "theme.light": "Light", "theme.dark": "Dark",
  zone: "Times", "zone.local": "Local", "zone.utc": "UTC",
  operators: "Operators", operatorsHint: "Connection, counts, and what could not be read", unreadBadge: "{n} could not be read",
  connecting: "Connecting", connectingSlow: "Connecting: no answer for {seconds} s",
  catchingUp: "Loading what you missed", catchingUpSlow: "Connected, but the server has not answered for {seconds} s",
  live: "Live", liveUnanswered: "Live, but the server did not send what happened before",
  offline: "Offline, next try in {seconds} s", offlineWhy: "Offline, next try in {seconds} s: {reason}", notSetUp: "Not set up", refused: "Not let in: {reason}", closed: "Closed",
  "reason.noToken": "there is no token; sign in again and load this page anew",
  "reason.closed": "the server closed every connection; sign in again and load this page anew",
  "reason.url": "the address or the token in config.js is not usable",
  "reason.unopened": "no connection could be opened; the address may be wrong, the token not accepted, or the network down",
  delay: "changes arrive after about {delay}", delayUnclear: "changes seem {delay} late, or the clocks differ",
  skewAhead: "this computer’s clock is {skew} ahead; times are corrected", skewBehind: "this computer’s clock is {skew} behind; times are corrected",
  seconds: "{n} s", minutes: "{n} min", hours: "{n} h",
  noConfig: "config.js cannot be loaded, so this page does not know where to connect.",
  noUrl: "Set the address of your WebSocket API in config.js.",
  severity: "Severity", status: "Status", incident: "Incident", type: "Type", resource: "Resource", changed: "Changed",
  none: "none", other: "{n} more value|{n} more values", open: "open", ofAll: "of {all}",
  filterBy: "Show only {value}", clear: "Clear filters", unacknowledged: "Not acknowledged",
  search: "Search", searchHint: "Search (press /)", sort: "Sort by", "sort.attention": "Attention", "sort.changed": "Last change",
  "sort.severity": "Severity", "sort.status": "Status", "sort.incident": "Incident", "sort.type": "Type", "sort.resource": "Resource",
  shown: "{n} of {all} shown",
  waiting: "{n} new", waitingCritical: "{n} new, {critical} critical", changedWhilePaused: "{n} new while paused",
  list: "Incidents", loading: "Waiting for incidents …", loadingWhy: "No incidents yet: {reason}", empty: "No incidents.", nothingFits: "No incident fits these filters.",
  timeline: "Last hour", timelineHint: "Incidents that began in the last hour: {critical} critical, {high} high, {medium} medium, {low} low, {rest} other",
  detail: "Incident {id}", close: "Close", acknowledge: "Acknowledge", unacknowledge: "Take back", acknowledged: "acknowledged here",
  copy: "Copy", copied: "Copied", copyFailed: "Copying is not possible here", copyOf: "Copy {field}",
  states: "States", lateState: "arrived late", responses: "Automatic responses", responsesNone: "None since this page was opened; earlier ones are not loaded.",
  latestResponses: "Latest automatic responses", latestNone: "None since this page was opened.",
  fields: "All fields", began: "Began", lastChange: "Last change", cutLeft: "… {n} more character|… {n} more characters", gone: "This incident is not among those that are loaded.",
  "op.frames": "Frames", "op.messages": "Messages", "op.size": "Received (characters)", "op.stale": "Overtaken by a newer state",
  "op.rows": "Incidents kept", "op.responses": "Responses kept", "op.delay": "Usual delay (last 30 s)", "op.skew": "This clock is ahead by", "op.trip": "Round trip",
  "op.url": "Server", "op.unknownYet": "not known", "op.unread": "Could not read", "op.unknown": "Kinds this page does not show",
  "op.nothing": "Nothing.", "op.times": "{n} time|{n} times", "op.last": "Last one:", "op.log": "Connection", "op.history": "history of {n} incidents", "op.gap": "history of {n} incidents after a gap; what happened between is lost",
  "why.binary": "binary frames", "why.notJson": "frames that are not JSON", "why.notObject": "messages that are not objects",
  "why.noId": "incidents without an id", "why.serverError": "errors the server reported", "why.page": "mistakes of this page",
  "say.offline": "Connection lost", "say.loaded": "{n} incident loaded|{n} incidents loaded", "say.opened": "{n} new, {critical} critical", "say.resolved": "{n} resolved",
  keys: "Keys: / search, ↑ ↓ or j k move, Enter opens, Escape closes, a acknowledges, p pauses",
};

export const ko = {
  title: "인시던트", skip: "목록으로 가기",
  pause: "일시 정지", play: "재개", sound: "소리", soundHint: "새 CRITICAL 인시던트마다 소리를 냅니다",
  notify: "알림", notifyHint: "새 CRITICAL 인시던트마다 알림을 띄웁니다", notifyDenied: "이 브라우저가 이 페이지의 알림을 허용하지 않습니다",
  theme: "테마", "theme.auto": "자동", "theme.light": "밝게", "theme.dark": "어둡게",
  zone: "시간대", "zone.local": "현지", "zone.utc": "UTC",
  operators: "운영", operatorsHint: "연결, 건수, 읽지 못한 것", unreadBadge: "읽지 못함 {n}건",
  connecting: "연결 중", connectingSlow: "연결 중: {seconds}초 동안 응답 없음",
  catchingUp: "놓친 내용을 불러오는 중", catchingUpSlow: "연결되었지만 서버가 {seconds}초 동안 응답하지 않음",
  live: "실시간", liveUnanswered: "실시간이지만 서버가 이전 내용을 보내지 않음",
  offline: "오프라인, {seconds}초 후 다시 시도", offlineWhy: "오프라인, {seconds}초 후 다시 시도: {reason}", notSetUp: "설정되지 않음", refused: "접속 거부: {reason}", closed: "닫힘",
  "reason.noToken": "토큰이 없습니다. 다시 로그인한 뒤 이 페이지를 새로 여세요",
  "reason.closed": "서버가 모든 연결을 닫았습니다. 다시 로그인한 뒤 이 페이지를 새로 여세요",
  "reason.url": "config.js의 주소나 토큰을 쓸 수 없습니다",
  "reason.unopened": "연결을 열 수 없습니다. 주소가 틀렸거나, 토큰이 받아들여지지 않거나, 네트워크가 끊겼을 수 있습니다",
  delay: "변경은 약 {delay} 후 도착", delayUnclear: "변경이 {delay} 늦거나 시계가 서로 다름",
  skewAhead: "이 컴퓨터의 시계가 {skew} 빠름, 시각은 보정됨", skewBehind: "이 컴퓨터의 시계가 {skew} 느림, 시각은 보정됨",
  seconds: "{n}초", minutes: "{n}분", hours: "{n}시간",
  noConfig: "config.js를 불러올 수 없어 어디에 연결할지 알 수 없습니다.",
  noUrl: "config.js에 WebSocket API의 주소를 적으세요.",
  severity: "심각도", status: "상태", incident: "인시던트", type: "유형", resource: "리소스", changed: "변경",
  none: "없음", other: "그 밖의 값 {n}개", open: "미해결", ofAll: "/ 전체 {all}",
  filterBy: "{value}만 보기", clear: "필터 지우기", unacknowledged: "미확인만",
  search: "검색", searchHint: "검색 (/ 키)", sort: "정렬", "sort.attention": "주의 순", "sort.changed": "최근 변경",
  "sort.severity": "심각도", "sort.status": "상태", "sort.incident": "인시던트", "sort.type": "유형", "sort.resource": "리소스",
  shown: "전체 {all} 중 {n} 표시",
  waiting: "새 항목 {n}", waitingCritical: "새 항목 {n}, 심각 {critical}", changedWhilePaused: "정지 중 새 항목 {n}",
  list: "인시던트 목록", loading: "인시던트를 기다리는 중 …", loadingWhy: "아직 인시던트가 없습니다: {reason}", empty: "인시던트가 없습니다.", nothingFits: "필터에 맞는 인시던트가 없습니다.",
  timeline: "최근 한 시간", timelineHint: "최근 한 시간에 시작된 인시던트: CRITICAL {critical}, HIGH {high}, MEDIUM {medium}, LOW {low}, 기타 {rest}",
  detail: "인시던트 {id}", close: "닫기", acknowledge: "확인", unacknowledge: "확인 취소", acknowledged: "여기서 확인함",
  copy: "복사", copied: "복사됨", copyFailed: "여기서는 복사할 수 없습니다", copyOf: "{field} 복사",
  states: "상태 기록", lateState: "늦게 도착", responses: "자동 대응", responsesNone: "이 페이지를 연 뒤로 없습니다. 그 전의 대응은 불러오지 않습니다.",
  latestResponses: "최근 자동 대응", latestNone: "이 페이지를 연 뒤로 없습니다.",
  fields: "모든 항목", began: "시작", lastChange: "최근 변경", cutLeft: "… {n}자 더 있음", gone: "이 인시던트는 불러온 것 가운데 없습니다.",
  "op.frames": "프레임", "op.messages": "메시지", "op.size": "받은 글자 수", "op.stale": "더 새로운 상태에 밀린 것",
  "op.rows": "보관 중인 인시던트", "op.responses": "보관 중인 대응", "op.delay": "평소 지연 (최근 30초)", "op.skew": "이 시계가 빠른 정도", "op.trip": "왕복 시간",
  "op.url": "서버", "op.unknownYet": "알 수 없음", "op.unread": "읽지 못한 것", "op.unknown": "이 페이지가 표시하지 않는 종류",
  "op.nothing": "없음.", "op.times": "{n}번", "op.last": "마지막:", "op.log": "연결 기록", "op.history": "인시던트 {n}건의 기록", "op.gap": "공백 뒤 인시던트 {n}건의 기록, 그 사이의 내용은 사라짐",
  "why.binary": "이진 프레임", "why.notJson": "JSON이 아닌 프레임", "why.notObject": "객체가 아닌 메시지",
  "why.noId": "id가 없는 인시던트", "why.serverError": "서버가 알린 오류", "why.page": "이 페이지의 오류",
  "say.offline": "연결이 끊김", "say.loaded": "인시던트 {n}건을 불러왔습니다", "say.opened": "새 인시던트 {n}건, 심각 {critical}건", "say.resolved": "{n}건 해결됨",
  keys: "키: / 검색, ↑ ↓ 또는 j k 이동, Enter 열기, Escape 닫기, a 확인, p 일시 정지",
};

const LANGUAGES = new Map([["en", en], ["ko", ko]]);

/** The first language of the browser's that this page has, else English. */
export const chosen = (languages) =>
  languages.map((each) => each.toLowerCase().split("-")[0]).find((each) => LANGUAGES.has(each)) ?? "en";

/** What says a text in that language: its name, and the values in it. */
export function speaker(language) {
  const words = LANGUAGES.get(language), number = new Intl.NumberFormat(language);
  return (name, values = {}) => {
    const forms = words[name].split("|"), form = values.n === 1 ? forms[0] : forms.at(-1);
    return form.replace(/\{(\w+)\}/g, (_, each) => (typeof values[each] === "number" ? number.format(values[each]) : values[each] ?? ""));
  };
}

/** A span of ms in the unit that suits it. */
export function span(say, ms) {
  const seconds = Math.abs(ms) / 1000;
  if (seconds < 10) return say("seconds", { n: Math.max(0.1, Math.round(seconds * 10) / 10) });
  if (seconds < 120) return say("seconds", { n: Math.round(seconds) });
  return seconds < 7200 ? say("minutes", { n: Math.round(seconds / 60) }) : say("hours", { n: Math.round(seconds / 3600) });
}
