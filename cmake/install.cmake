# What `cmake --install` puts where: the header, both libraries, find_package and pkg-config files, documents.
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/ferrumk)
set(pkgconfig_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

install(FILES include/ferrumk.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS ferrumk ferrumk_static EXPORT ferrumk
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT ferrumk NAMESPACE ferrumk:: FILE ferrumk-targets.cmake DESTINATION ${package_dir})

configure_package_config_file(cmake/ferrumk-config.cmake.in ferrumk-config.cmake
                              INSTALL_DESTINATION ${package_dir})
# A 0.x header may still change from one minor version to the next.
write_basic_package_version_file(ferrumk-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/ferrumk-config.cmake
        ${CMAKE_CURRENT_BINARY_DIR}/ferrumk-config-version.cmake DESTINATION ${package_dir})

# The .pc file finds its prefix from its own place, so that an installed tree can be moved.
file(RELATIVE_PATH prefix_from_pc /${pkgconfig_dir} /)
string(REGEX REPLACE "/$" "" prefix_from_pc "${prefix_from_pc}")
configure_file(cmake/ferrumk.pc.in ferrumk.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/ferrumk.pc DESTINATION ${pkgconfig_dir})

install(FILES README.md LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} OPTIONAL)
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR}/docs FILES_MATCHING PATTERN "*.md")
