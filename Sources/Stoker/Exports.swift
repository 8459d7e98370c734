// The types of lower floors that a user of the library meets.
@_exported public import DirectIO
@_exported public import ExpertRuntime
@_exported public import Models
@_exported public import Routing
@_exported public import Tensors
