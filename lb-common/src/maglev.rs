//! Maglev (Eisenbud et al., NSDI 2016, section 3.4) with weights. For the controller.
