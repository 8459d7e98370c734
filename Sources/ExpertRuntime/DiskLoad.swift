internal import Tensors

/// How busy the disk has been lately, and with what.
struct DiskLoad {
  /// What a layer leaves of the past: a window of some 500 layers.
  private static let retention: Float = 0.998

  private var demandedBytes: Float = 0
  private var aheadBytes: Float = 0
  private var busyNanoseconds: Float = 0
  private var handlingNanoseconds: Float = 0
  private var elapsedNanoseconds: Float = 0
  private var hiddenNanoseconds: Float = 0
  private var stalledLayers: Float = 0
  private var lastLayer: UInt64 = 0
  /// From the beginning of the layer before to that of the latest.
  private(set) var layerSeconds: Float = 0

  /// The share of time in which the disk is busy with demand reads, 0 to 1.
  var utilisation: Float {
    let share = demandedBytes / max(1, demandedBytes + aheadBytes)
    return min(1, share * busyNanoseconds / max(1, elapsedNanoseconds))
  }

  /// The share of a read that is the reader's own work: near nothing where reads run by themselves, near
  /// all where queuing one copies it from the page cache, 0 to 1.
  var blocking: Float { min(1, handlingNanoseconds / max(1, busyNanoseconds)) }

  /// Seconds that reads of `byteCount` bytes take, their reader's own work apart.
  func readSeconds(byteCount: Int) -> Float {
    Float(byteCount) * busyNanoseconds / max(1, demandedBytes + aheadBytes) * (1 - blocking) / 1e9
  }

  /// Seconds of waiting for `byteCount` bytes at one layer when none of them is read ahead: their time on
  /// the disk, less what is computed meanwhile.
  func stallSeconds(byteCount: Int) -> Float {
    max(0, readSeconds(byteCount: byteCount) - hiddenNanoseconds / max(1, stalledLayers) / 1e9)
  }

  /// A layer had nothing left to compute after `nanoseconds` and waited then.
  mutating func noteStall(after nanoseconds: UInt64) {
    hiddenNanoseconds += Float(nanoseconds)
    stalledLayers += 1
  }

  mutating func beginLayer(at now: UInt64) {
    layerSeconds = lastLayer > 0 ? Float(now - lastLayer) / 1e9 : 0
    elapsedNanoseconds += layerSeconds * 1e9
    lastLayer = now
    demandedBytes *= Self.retention
    aheadBytes *= Self.retention
    busyNanoseconds *= Self.retention
    handlingNanoseconds *= Self.retention
    hiddenNanoseconds *= Self.retention
    stalledLayers *= Self.retention
    elapsedNanoseconds *= Self.retention
  }

  mutating func noteDemand(byteCount: Int) { demandedBytes += Float(byteCount) }

  mutating func noteBusy(nanoseconds: UInt64) { busyNanoseconds += Float(nanoseconds) }

  mutating func noteAhead(byteCount: Int) { aheadBytes += Float(byteCount) }

  /// Time spent in queuing reads and in taking note of their ends.
  mutating func noteHandling(since start: UInt64) {
    handlingNanoseconds += Float(monotonicNanoseconds() - start)
  }
}
