// The search runs in a worker, which browsers refuse to pages from the file system: there a hidden frame runs it.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.documentElement.append(frame)
      const inside = frame.contentWindow
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      inside.importScripts = (...urls) => Promise.all(urls.map(each => load(inside, new URL(each, url))))
      this.frame = frame
      this.ready = load(inside, url)
    }
    postMessage(data) {
      const { contentWindow } = this.frame
      this.ready.then(() => contentWindow.dispatchEvent(new contentWindow.MessageEvent("message", { data })))
    }
    terminate() {
      this.frame.remove()
    }
  }
}

function load(inside, url) {
  return new Promise((resolve, reject) => {
    const script = inside.document.createElement("script")
    script.src = url
    script.onload = resolve
    script.onerror = reject
    inside.document.documentElement.append(script)
  })
}
